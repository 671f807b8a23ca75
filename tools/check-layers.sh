#!/bin/sh
# Includes point down only: each folder may include itself and those listed.
# The table is the picture in docs/architecture.md.
set -eu
cd "$(dirname "$0")/.."

allowed() {
	case $1 in
	src/base)       echo "base" ;;
	src/mem)        echo "base mem" ;;
	src/loop)       echo "base loop" ;;
	src/snap)       echo "base snap" ;;
	src/bus)        echo "base loop bus" ;;
	src/irq)        echo "base mem loop bus snap irq hv/x86_state.h" ;;
	src/hv)         echo "base mem loop bus snap irq hv/[a-z_0-9]*.h" ;;
	src/hv/kvm)     echo "base mem loop bus snap irq hv/hv.h hv/x86_state.h hv/kvm" ;;
	src/hv/soft)    echo "base mem loop bus snap irq hv/hv.h hv/x86_state.h hv/soft" ;;
	src/backend)    echo "base mem loop backend" ;;
	src/virtio)     echo "base mem loop bus snap irq virtio/[a-z_]*.h" ;;
	src/virtio/dev) echo "base mem loop snap backend virtio/[a-z_]*.h virtio/dev/@.* virtio/vsock/vsock.h" ;;
	src/virtio/vsock) echo "base mem loop snap backend virtio/[a-z_]*.h virtio/vsock virtio/vhost_user" ;;
	src/virtio/vhost_user) echo "base mem loop virtio/[a-z_]*.h virtio/vhost_user" ;;
	src/chip)       echo "base mem loop bus snap irq backend chip" ;;
	src/machine)    echo "base mem loop bus snap irq hv virtio chip backend machine" ;;
	src/agent)      echo "base loop agent" ;;
	src/gdb)        echo "base mem loop hv gdb" ;;
	src/vm)         echo "base mem loop bus snap irq hv virtio chip backend machine gdb agent vm" ;;
	src/lib)        echo "base mem loop bus snap irq hv virtio chip backend machine gdb agent vm lib" ;;
	esac
}

bad=0
for f in $(git ls-files -co --exclude-standard 'src/*.c' 'src/*.h'); do
	dir=${f%/*}
	ok=$(allowed "$dir")
	while [ -z "$ok" ] && [ "$dir" != src ]; do
		dir=${dir%/*}
		ok=$(allowed "$dir")
	done
	stem=$(basename "$f" | sed 's/\.[ch]$//')
	for inc in $(sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f"); do
		hit=
		for a in $ok; do
			a=$(printf %s "$a" | sed "s/@/$stem/")
			if printf '%s\n' "$inc" | grep -qE "^$a(/|\$)" ||
			   { [ "$dir" = src/virtio/dev ] && [ "$inc" = virtio_devices.h ]; }; then
				hit=1
				break
			fi
		done
		case $inc in
		arcvmm/*) [ "$dir" = src/lib ] || [ "$dir" = src/vm ] && hit=1 ;;
		virtio_devices.h) hit=1 ;;
		esac
		if [ -z "$hit" ]; then
			echo "$f: includes $inc: ${dir#src/} may include only: $ok"
			bad=1
		fi
	done
done
for f in $(git ls-files -co --exclude-standard 'cli/*.c' 'cli/*.h' 'server/*.[ch]'); do
	sed -n 's/^#include "\([^"]*\)".*/\1/p' "$f" | while read -r inc; do
		case $inc in
		arcvmm/arcvmm.h | cli/* | server/*) ;;
		*) echo "$f: includes $inc: clients use arcvmm/arcvmm.h only" ;;
		esac
	done
done | { ! grep .; } || bad=1
exit $bad
