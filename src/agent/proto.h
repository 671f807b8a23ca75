/*
 * The agent's protocol, version 1: what host and guest say to each other over
 * one vsock connection. docs/agent.md describes it for people; this file and
 * frame.h are compiled into both sides.
 *
 * A connection is one session and carries one request: a command, a copy, a
 * question. Flow control between sessions is thereby the transport's, and one
 * that stalls holds up nobody else.
 *
 * Everything is a frame: le32 length of the payload, u8 type, three bytes 0,
 * payload. Numbers are little-endian. The host speaks first: HELLO, then ATTR
 * frames that describe the request, then the request itself; it need not wait
 * for the guest's HELLO in between.
 */
#ifndef ARC_AGENT_PROTO_H
#define ARC_AGENT_PROTO_H

#define AGENT_VERSION 1
#define AGENT_MAGIC   0x76637261u /* "arcv" */
/* Below 1024: only root in the guest can listen there. */
#define AGENT_PORT 1023

#define AGENT_FRAME_HEAD 8
/* The longest payload; an argument may have 128 KiB on Linux. */
#define AGENT_FRAME_MAX 135168u
/* How much data one frame carries, so that frames interleave. */
#define AGENT_CHUNK 65536u
/* All attributes of a request together (the kernel's limit on argv is less). */
#define AGENT_ATTR_MAX (4u << 20)
/* How many bytes of standard input may be on the way. */
#define AGENT_STDIN_WINDOW 65536u

enum agent_frame {
	/* Both ways. */
	AGENT_HELLO = 1, /* le32 magic, le16 version, le16 0, text */
	AGENT_ERROR = 2, /* le32 errno, le32 exit status, text; the last one */
	/* Host to guest: the request. */
	AGENT_ATTR = 3, /* le16 tag, value */
	AGENT_EXEC = 16,
	AGENT_PUT = 17, /* files to the guest: TREE_* follow */
	AGENT_GET = 18, /* files to the host: TREE_* come */
	AGENT_STATS = 19,
	AGENT_POWER = 20, /* le32 how, le32 patience in ms */
	AGENT_TIME = 21, /* le64 CLOCK_REALTIME in ns, le64 tolerated error */
	AGENT_LOG = 22, /* the kernel's log; u8 1: go on with what comes */
	AGENT_PING = 23,
	/* During a command, host to guest. */
	AGENT_STDIN = 32, /* data; empty: end of file */
	AGENT_SIGNAL = 33, /* le32 number */
	AGENT_RESIZE = 34, /* le16 rows, le16 columns */
	/* During a command, guest to host. */
	AGENT_STARTED = 40, /* le32 pid */
	AGENT_STDOUT = 41,
	AGENT_STDERR = 42,
	AGENT_EXIT = 43, /* struct of agent_exit, below; the last one */
	AGENT_STDIN_ACK = 44, /* le32 bytes the command has taken */
	/* A tree of files, from whichever side sends it; see tree.h. */
	AGENT_TREE_ENTRY = 48,
	AGENT_TREE_DATA = 49, /* le64 offset, bytes */
	AGENT_TREE_END = 50, /* the entry (file or directory) is complete */
	AGENT_TREE_DONE = 51, /* nothing follows */
	AGENT_TREE_RESULT =
		52, /* from the receiver: le64 entries, le64 bytes */
	/* Guest to host. */
	AGENT_REPLY = 56, /* the answer to STATS, POWER, TIME, PING */
};

enum agent_attr {
	AGENT_ATTR_ARG = 1, /* one word of the command */
	AGENT_ATTR_ENV = 2, /* NAME=value */
	AGENT_ATTR_CWD = 3,
	AGENT_ATTR_USER = 4, /* "name", "uid", "user:group" */
	AGENT_ATTR_LIMIT = 5, /* le32 RLIMIT_*, le64 soft, le64 hard */
	AGENT_ATTR_TIMEOUT = 6, /* le64 ns */
	AGENT_ATTR_TTY = 7, /* le16 rows, le16 columns: give it a terminal */
	AGENT_ATTR_FLAGS = 8, /* le32, AGENT_FLAG_* */
	AGENT_ATTR_PATH = 9, /* of PUT and GET, in the guest */
};

enum {
	AGENT_FLAG_STDIN = 1 << 0, /* standard input comes; else /dev/null */
	AGENT_FLAG_CLEAN_ENV = 1 << 1, /* only the ENV given, no defaults */
	AGENT_FLAG_DETACH = 1 << 2, /* end the session once it runs */
	AGENT_FLAG_OWNER = 1 << 3, /* copies keep uid and gid */
	AGENT_FLAG_FOLLOW = 1 << 4, /* copy what a symbolic link points to */
};

enum agent_power {
	AGENT_POWER_OFF = 0,
	AGENT_POWER_REBOOT = 1,
};

/*
 * Payload of AGENT_EXIT: le32 code, le32 signal, le32 flags; then, from agents
 * that measure, two le64 of the guest's CLOCK_MONOTONIC: ns from the fork of the
 * command to its reaping, and from the receipt of EXEC to this frame. Unknown
 * flags and further bytes are left out.
 */
#define AGENT_EXIT_LEN	     12
#define AGENT_EXIT_TIMES_LEN 28
enum {
	AGENT_EXIT_TIMEOUT = 1 << 0, /* it was ended by its timeout */
	AGENT_EXIT_SHUTDOWN = 1 << 1, /* while the guest shut down */
};

#endif
