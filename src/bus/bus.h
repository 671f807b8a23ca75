/*
 * The bus: which device answers at an address, for MMIO and port I/O.
 *
 * A range belongs to a loop; a vCPU's access takes that loop's lock, so a
 * register handler runs as if it were a callback of the loop. The bus also
 * emulates ioeventfd for engines that have none: a matching write signals the
 * eventfd and goes no further. The table is fixed before vCPUs run.
 */
#ifndef ARC_BUS_BUS_H
#define ARC_BUS_BUS_H

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct bus;
struct err;

enum bus_space { BUS_MMIO, BUS_PIO };

/* A write that is a doorbell: it signals @fd and needs no vCPU exit. */
struct bus_ioeventfd {
	enum bus_space space;
	uint64_t addr;
	unsigned len; /* 1, 2, 4, 8; 0: any length, @match ignored */
	uint64_t match;
	bool match_any; /* any value */
	int fd;
};

/*
 * Register handlers: @off from the start of the range, @len 1, 2, 4 or 8 bytes,
 * never past the end of the range. The value is little-endian in the low @len
 * bytes. Reads return it. Any access a guest makes is legal: answer 0 or
 * all-ones to what means nothing.
 */
struct bus_ops {
	uint64_t (*read)(void *dev, uint64_t off, unsigned len);
	void (*write)(void *dev, uint64_t off, unsigned len, uint64_t val);
};

/* Two ranges of one space must not overlap: -EEXIST with a sentence. */
int bus_create(struct bus **out);
void bus_destroy(struct bus *b);
int bus_add(struct bus *b, enum bus_space space, uint64_t base, uint64_t size,
	    const struct bus_ops *ops, void *dev, struct loop *owner,
	    struct err *e);
void bus_remove(struct bus *b, enum bus_space space, uint64_t base);

/*
 * A vCPU's access. Where nothing answers, reads give all ones and writes are
 * dropped (what an open bus does); returns false then, for tracing.
 */
bool bus_read(struct bus *b, enum bus_space space, uint64_t addr, unsigned len,
	      uint64_t *val);
bool bus_write(struct bus *b, enum bus_space space, uint64_t addr, unsigned len,
	       uint64_t val);

/*
 * Doorbells for an engine without ioeventfd of its own: bus_write() signals the
 * eventfd of a matching write and looks no further. -EEXIST, -ENOMEM.
 */
int bus_add_ioeventfd(struct bus *b, const struct bus_ioeventfd *io);
void bus_remove_ioeventfd(struct bus *b, const struct bus_ioeventfd *io);

#endif
