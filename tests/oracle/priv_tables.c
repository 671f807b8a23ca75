#include "priv_machine.h"

extern const struct priv_table priv_paging, priv_events, priv_segments,
	priv_system;

const struct priv_table *const priv_tables[] = { &priv_paging, &priv_events,
						 &priv_segments, &priv_system,
						 NULL };
