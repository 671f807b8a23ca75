/*
 * The privileged part: what no user program can ask the host, against
 * expectations written from the manuals.
 */
#ifndef ARC_ORACLE_PRIV_H
#define ARC_ORACLE_PRIV_H

struct rows;

/* Runs all tables, prints what fails, notes in @rows; the exit status. */
int priv_run(struct rows *rows);

#endif
