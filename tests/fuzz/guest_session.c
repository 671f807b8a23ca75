/*
 * The guest's session, compiled in, with the places where it would act on the
 * machine it runs on led elsewhere.
 */
#include "agent/copy.h"
#include "agent_frames.h"

static int fuzz_copy_recv(int fd, struct frame_in *in, const char *dest,
			  unsigned flags, struct copy_result *r)
{
	(void)dest;
	return copy_recv(fd, in, agent_target_dir(), flags & ~COPY_DEVICES, r);
}

static int fuzz_copy_send(int fd, struct frame_in *in, const char *path,
			  const char *name, unsigned flags,
			  struct copy_result *r)
{
	(void)path;
	return copy_send(fd, in, agent_source_tree(), name, flags, r);
}

#define copy_recv fuzz_copy_recv
#define copy_send fuzz_copy_send
#include "guest/session.c"

void session_stats(struct session *s)
{
	session_error(s, 1, 1, "not here");
}

void session_power(struct session *s, const struct frame *f)
{
	(void)f;
	session_error(s, 1, 1, "not here");
}

void session_time(struct session *s, const struct frame *f)
{
	(void)f;
	session_error(s, 1, 1, "not here");
}

void session_log(struct session *s, const struct frame *f)
{
	(void)f;
	session_error(s, 1, 1, "not here");
}
