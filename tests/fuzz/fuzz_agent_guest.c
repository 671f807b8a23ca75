/*
 * The agent in the guest against a hostile host: whatever comes, the session
 * ends, leaves nothing behind, and writes only where it was told.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/frame.h"
#include "agent_frames.h"
#include "base/bug.h"
#include "guest/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct frame_out o = { 0 };
	uint8_t *rest;
	size_t n;
	int sv[2];

	if (len < 2 || len > 8192)
		return 0;
	/* The first byte: mostly a proper start. */
	if (data[0] & 7) {
		frame_put_hello(&o, "");
		if (data[0] & 8)
			frame_put_attr(&o, AGENT_ATTR_ARG, "c", 1);
		if (data[0] & 16)
			frame_put_attr(&o, AGENT_ATTR_PATH, "p", 1);
		if (data[0] & 32)
			frame_put(&o,
				  data[0] & 64	  ? AGENT_PUT
				  : data[0] & 128 ? AGENT_GET
						  : AGENT_EXEC,
				  NULL, 0, NULL, 0);
	}
	rest = agent_frames(data + 1, len - 1, &n);
	o.buf = realloc(o.buf, o.len + n + 1);
	bug_on(!o.buf);
	if (n)
		__builtin_memcpy(o.buf + o.len, rest, n);
	agent_line(o.buf, o.len + n, sv);
	agent_session(sv[0]);
	close(sv[1]);
	free(rest);
	frame_out_free(&o);
	agent_target_dir();
	agent_target_check();
	return 0;
}
