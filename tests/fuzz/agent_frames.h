/*
 * Turns fuzz input into the byte stream of one side of an agent connection:
 * mostly well-formed frames, so that the fuzzer works on what is in them, with
 * raw bytes in between when it likes.
 *
 * Input: u8 type, u8 length class and length, payload; see agent_frames.c.
 */
#ifndef ARC_FUZZ_AGENT_FRAMES_H
#define ARC_FUZZ_AGENT_FRAMES_H

#include <stddef.h>
#include <stdint.h>

/* The stream for @data, and its length; free() it. */
uint8_t *agent_frames(const uint8_t *data, size_t len, size_t *out_len);

/* Two ends of a socket, @stream waiting on the first; its writer is done. */
void agent_line(const uint8_t *stream, size_t len, int sv[2]);

/*
 * A directory with files of every kind in it, made once. And an empty one to
 * receive into: its parent holds a directory "outside", to which a symbolic
 * link "out" in it leads.
 */
const char *agent_source_tree(void);
const char *agent_target_dir(void);
/* Empties the target; a file in "outside" ends the program. */
void agent_target_check(void);

#endif
