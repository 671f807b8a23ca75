#!/bin/bash
# A stock Debian guest under QEMU (TCG) drives our vsock device over vhost-user.
#
#   run-qemu.sh [-k KERNEL_DIR] [-b BUILD_DIR] [-a "backend options"] [-F FILE:NAME]
#               JOB...
#
# KERNEL_DIR holds boot/vmlinuz-* and lib/modules/*; the jobs are those of
# tests/vsock/peer.c. -F puts a file into the guest's root.
set -eu
cd "$(dirname "$0")/../.."
kernel=${ARCVMM_KERNEL_DIR:-} build=build/gcc opts= files=()
while getopts k:b:a:F: o; do
	case $o in
	k) kernel=$OPTARG ;;
	b) build=$OPTARG ;;
	a) opts=$OPTARG ;;
	F) files+=("$OPTARG") ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- up send 64M recv 64M dial 16M echo 200 rtt 200 off
for need in qemu-system-x86_64 cpio musl-gcc; do
	command -v $need >/dev/null || { echo "run-qemu: no $need" >&2; exit 2; }
done
[ -n "$kernel" ] && ls "$kernel"/boot/vmlinuz-* >/dev/null 2>&1 ||
	{ echo "run-qemu: no kernel (-k DIR or ARCVMM_KERNEL_DIR)" >&2; exit 2; }

work=$(mktemp -d)
pids=()
cleanup() {
	[ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

# The guest's root: the peer as init, the modules in load order.
# (linux/ headers are not musl's: the peer needs none.)
musl-gcc -std=gnu11 -Os -D_GNU_SOURCE -static -o "$work/peer" tests/vsock/peer.c
mkdir -p "$work/root/modules" "$work/root/proc" "$work/root/dev"
cp "$work/peer" "$work/root/init"
for f in ${files[@]+"${files[@]}"}; do cp "${f%:*}" "$work/root/${f##*:}"; done
n=10
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev \
	virtio_pci vsock vmw_vsock_virtio_transport_common \
	vmw_vsock_virtio_transport; do
	f=$(find "$kernel/lib/modules" -name "$m.ko*" | head -1)
	[ -n "$f" ] || continue
	case $f in
	*.xz) xz -dc "$f" >"$work/root/modules/$n-$m.ko" ;;
	*) cp "$f" "$work/root/modules/$n-$m.ko" ;;
	esac
	n=$((n + 1))
done
(cd "$work/root" && find . | cpio -o -H newc --quiet) >"$work/initrd"

# shellcheck disable=SC2086
"$build/arcvmm" vhost-user-vsock --socket "$work/vu" --uds-path "$work/uds" \
	--guest-cid 42 $opts &
backend=$!
pids+=($backend)
for _ in $(seq 100); do [ -S "$work/vu" ] && break; sleep 0.05; done

qemu-system-x86_64 -accel tcg -M q35 -cpu max -smp 1 -m 512M -nodefaults \
	-no-user-config -no-reboot -display none -serial "file:$work/console" \
	-object memory-backend-memfd,id=m,size=512M,share=on -numa node,memdev=m \
	-chardev "socket,id=c,path=$work/vu" -device vhost-user-vsock-pci,chardev=c \
	-kernel "$kernel"/boot/vmlinuz-* -initrd "$work/initrd" \
	-append "console=ttyS0 quiet panic=-1 cryptomgr.notests rdinit=/init" &
qemu=$!
pids=($qemu $backend)

status=0
timeout "${TIMEOUT:-600}" "$work/peer" host "$work/uds" "$@" || status=$?
echo "backend CPU: $(awk '{print ($14 + $15) / 100}' /proc/$backend/stat) s"
if [ $status -ne 0 ] || [ -n "${DUMP:-}" ]; then
	kill -USR1 $backend; sleep 0.3
	[ $status -eq 0 ] || tail -30 "$work/console"
fi
# After "off" the guest must power itself off.
case "$status $*" in
"0 "*" off") timeout 30 tail --pid=$qemu -f /dev/null || status=1 ;;
esac
exit $status
