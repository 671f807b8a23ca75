/*
 * A tree of files over a connection: one side sends, the other receives. The
 * same code runs on the host and in the guest, blocking, one frame of memory.
 *
 * What is sent, depth first: ENTRY, for a file DATA (only where it has data:
 * holes stay holes) and END; for a directory its entries and END; at last
 * DONE. The receiver answers with RESULT, or ERROR at any time, upon which the
 * sender stops.
 *
 * ENTRY: u8 kind ('f' file, 'd' directory, 'l' symbolic link, 'h' hard link,
 * 'p' FIFO, 'c' and 'b' devices), three bytes 0, le32 mode, le32 uid, le32 gid,
 * le64 mtime seconds, le32 nanoseconds, le64 atime seconds, le32 nanoseconds,
 * le32 major, le32 minor, le16 length of the name, name, target. A name is one
 * component. The target of a hard link is a path from the first entry, a
 * directory, on.
 * END of a file: le64 size.
 *
 * The other side may be hostile. The receiver creates names only below the
 * directory it was told, never through a symbolic link, writes a file aside
 * and renames it when it is whole; on failure what is incomplete is removed.
 */
#ifndef ARC_AGENT_COPY_H
#define ARC_AGENT_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/frame.h"

#define COPY_ENTRY_HEAD 54
#define COPY_DEPTH_MAX	200 /* a descriptor each */

struct copy_result {
	uint64_t entries, bytes; /* what came about */
	char why[512]; /* a sentence, when it failed */
};

/*
 * Send @path as @name (NULL: its last component; "." for a directory: its
 * contents go into the directory named to the receiver), and wait for the
 * verdict. @flags: AGENT_FLAG_FOLLOW. 0 or -errno with r->why.
 */
int copy_send(int fd, struct frame_in *in, const char *path, const char *name,
	      unsigned flags, struct copy_result *r);

enum {
	COPY_OWNER = 1 << 0, /* set uid and gid as sent */
	COPY_DEVICES = 1 << 1, /* make device nodes; else they are refused */
};

/*
 * Receive a tree as @dest: into it if that is a directory, else under that
 * name in its parent, which must exist. 0 or -errno with r->why; the sender has
 * been told.
 */
int copy_recv(int fd, struct frame_in *in, const char *dest, unsigned flags,
	      struct copy_result *r);

#endif
