/*
 * What every part of the guest program uses. It is linked with musl, without
 * any kernel header, and kept small.
 */
#ifndef ARC_GUEST_UTIL_H
#define ARC_GUEST_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* CLOCK_BOOTTIME in nanoseconds: since the kernel started. */
uint64_t boot_ns(void);
/* CLOCK_MONOTONIC */
uint64_t now_ns(void);

/* A line "arcvmm: ..." on stderr, which is the console in init. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* @path as text closed by a 0, at most @size - 1 bytes; length or -errno. */
long read_text(const char *path, char *buf, size_t size);
/* 0 or -errno. */
int write_text(const char *path, const char *text);
/* All bytes, retrying; 0 or -errno. */
int write_all(int fd, const void *data, size_t len);
/* mkdir -p. 0 or -errno. */
int make_dirs(const char *path, unsigned mode);
/* Up to @len bytes into @buf, until the end of the file; or -errno. */
long read_full(int fd, void *buf, size_t len);

/* Ends @s at its first newline; returns @s. */
char *chomp(char *s);

#endif
