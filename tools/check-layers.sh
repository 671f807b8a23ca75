#!/bin/sh
# Includes point down only: each folder may include what its line lists (a
# folder, or a pattern of headers; @ is the file's own name), and clients the
# public header only. The table is the picture in docs/architecture.md.
set -eu
cd "$(dirname "$0")/.."

git ls-files -co --exclude-standard 'src/*.[ch]' 'src/*.inc' 'cli/*.[ch]' |
	xargs grep -H '^#include "' |
	awk -F: '
BEGIN {
	low = "base mem loop bus snap irq"
	may["src/base"] = "base"
	may["src/mem"] = "base mem"
	may["src/loop"] = "base loop"
	may["src/snap"] = "base snap"
	may["src/bus"] = "base loop bus"
	may["src/irq"] = low " hv/x86_state.h"
	may["src/hv"] = low " hv/[a-z_0-9]*.h"
	may["src/hv/kvm"] = low " hv/hv.h hv/x86_state.h hv/kvm"
	may["src/hv/soft"] = low " hv/hv.h hv/x86_state.h hv/soft"
	may["src/backend"] = "base mem loop backend"
	may["src/virtio"] = low " virtio/[a-z_]*.h virtio_devices.h"
	may["src/virtio/dev"] = "base mem loop snap backend " \
		"virtio/[a-z_]*.h virtio/dev/@.* virtio/vsock/vsock.h"
	may["src/virtio/vsock"] = "base mem loop snap backend " \
		"virtio/[a-z_]*.h virtio/vsock virtio/vhost_user"
	may["src/virtio/vhost_user"] = \
		"base mem loop virtio/[a-z_]*.h virtio/vhost_user"
	may["src/chip"] = low " backend chip"
	may["src/machine"] = low " hv virtio chip backend machine"
	may["src/agent"] = "base loop agent"
	may["src/gdb"] = "base mem loop hv gdb"
	may["src/vm"] = low " hv virtio chip backend machine gdb agent vm"
	may["src/lib"] = may["src/vm"] " lib arcvmm/arcvmm.h"
	may["cli"] = "arcvmm/arcvmm.h cli"
}
{
	file = dir = $1
	inc = $0
	sub(/^[^"]*"/, "", inc)
	sub(/".*/, "", inc)
	stem = file
	sub(/.*\//, "", stem)
	sub(/\.[a-z]+$/, "", stem)
	do
		sub(/\/[^\/]*$/, "", dir)
	while (!(dir in may) && dir ~ /\//)
	n = split(may[dir], ok, " ")
	for (i = 1; i <= n; i++) {
		sub(/@/, stem, ok[i])
		if (inc ~ "^" ok[i] "(/|$)")
			next
	}
	print file ": includes " inc ": " dir " may include only: " may[dir]
	bad = 1
}
END { exit bad }'
