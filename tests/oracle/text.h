/*
 * Cases as one line of text: "mode=64 run=step code=48ffc0 rip=10000000
 * rax=1 fl=202 m20000010=0011 fx0=.."; pre= runs before code. What is left out has the default of
 * text_default(). Numbers are hexadecimal, bytes in memory order.
 */
#ifndef ARC_ORACLE_TEXT_H
#define ARC_ORACLE_TEXT_H

#include <stddef.h>
#include <stdio.h>

#include "case.h"

void text_default(struct ocase *c);
void text_write(FILE *f, const struct ocase *c);
/* False: malformed; *at says where. Empty lines and # are the caller's. */
bool text_read(struct ocase *c, const char *line, const char **at);

#endif
