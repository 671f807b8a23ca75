/* The public side of the vsock device for other VMMs' guests. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arcvmm/arcvmm.h"
#include "base/log.h"
#include "lib/lib.h"
#include "loop/loop.h"
#include "virtio/vsock/vsock.h"

struct arcvmm_vhost_vsock {
	struct loop *loop;
	struct vsock_vhost_user *front;
	struct log log;
	arcvmm_log_fn *log_fn;
	void *log_ctx;
};

static void forward_log(void *ctx, enum log_level level, const char *text)
{
	struct arcvmm_vhost_vsock *s = ctx;

	s->log_fn(s->log_ctx, (enum arcvmm_log_level)level, text);
}

int arcvmm_vhost_vsock_create(struct arcvmm_vhost_vsock **out,
			      const struct arcvmm_vhost_vsock_config *c,
			      struct arcvmm_error *error)
{
	struct arcvmm_vhost_vsock *s = calloc(1, sizeof(*s));
	struct vsock_config v = {
		.guest_cid = c->guest_cid,
		.uds_path = c->uds_path,
		.hairpin = c->hairpin,
	};
	struct err e = { 0 };
	int rc;

	if (!s)
		return public_error(error, -ENOMEM, &e);
	if (c->log) {
		s->log_fn = c->log;
		s->log_ctx = c->log_ctx;
		s->log = (struct log){ .sink = forward_log,
				       .ctx = s,
				       .level = (enum log_level)c->log_level };
		v.log = &s->log;
	}
	rc = loop_create(&s->loop, v.log);
	if (!rc)
		rc = vsock_vhost_user_create(&s->front, s->loop, c->socket, &v,
					     &e);
	if (!rc)
		rc = loop_start_thread(s->loop, "vsock-io");
	if (rc) {
		arcvmm_vhost_vsock_destroy(s);
		return public_error(error, rc, &e);
	}
	*out = s;
	return 0;
}

void arcvmm_vhost_vsock_destroy(struct arcvmm_vhost_vsock *s)
{
	if (!s)
		return;
	if (s->loop)
		loop_stop_thread(s->loop);
	vsock_vhost_user_destroy(s->front);
	loop_destroy(s->loop);
	free(s);
}

static void dump_line(void *ctx, const char *text)
{
	fprintf(ctx, "%s\n", text);
}

char *arcvmm_vhost_vsock_dump(struct arcvmm_vhost_vsock *s)
{
	struct vsock *v = vsock_vhost_user_core(s->front);
	const struct vsock_counters *n = vsock_counters(v);
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	loop_lock(s->loop);
#define X(name)      \
	if (n->name) \
		fprintf(f, #name " %llu\n", (unsigned long long)n->name);
	VSOCK_COUNTERS(X)
#undef X
	vsock_dump(v, dump_line, f);
	loop_unlock(s->loop);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}
