#!/bin/bash
# Run a script on an "L1 host": a Debian cloud kernel under QEMU's emulated AMD
# SVM, where /dev/kvm is the real thing whatever this machine's is.
#
#   l1.sh [OPTION]... SCRIPT     SCRIPT's output, and exit with its status
#     --bin FILE         put FILE and its shared libraries into /p/bin, /p/lib
#     --add FILE[=NAME]  put FILE (or folder) into /p, as NAME
#     --kernel 6.1|6.12  put a guest kernel into /p/kernel-V/{vmlinuz,modules}
#     --icount           count instructions: virtual time that does not depend
#                        on the load of the machine (no snapshot, no disk)
#     --mem SIZE         of L1 (2G)
#     --timeout SECONDS  (300)
#     --build            only make sure that the cached L1 image exists
#
# The L1 host is an initramfs with KVM loaded. It is booted once; a snapshot of
# it, asleep, comes back in about a second. What a run needs travels on a
# read-only disk that holds a plain cpio archive, so a new binary needs no new
# snapshot. Rules that cost days to find: one L1 CPU; EPYC and not max; no XSAVE.
#
# Cached in $ARCVMM_CACHE (default ~/.cache/arcvmm-test), keyed by what it is
# made of. Needs: qemu-system-x86_64 qemu-img cpio busybox-static.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arcvmm-test}
bins=() adds=() kernels=() icount= mem=2G timeout=300 build= script=

die() {
	echo "l1: $*" >&2
	exit 125
}

while [ $# -gt 0 ]; do
	case $1 in
	--bin) bins+=("$2"); shift ;;
	--add) adds+=("$2"); shift ;;
	--kernel) kernels+=("$2"); shift ;;
	--icount) icount=1 ;;
	--mem) mem=$2; shift ;;
	--timeout) timeout=$2; shift ;;
	--build) build=1 ;;
	-*) die "unknown option $1" ;;
	*) script=$1 ;;
	esac
	shift
done
[ -n "$script$build" ] || die "no script to run"
for tool in qemu-system-x86_64 qemu-img cpio; do
	command -v $tool >/dev/null || die "$tool is not installed"
done
busybox=$(command -v busybox) || die "busybox-static is not installed"

{ read -r vmlinuz && read -r modules; } < <("$top/tools/fetch-kernel.sh" 6.1) ||
	die "no kernel for L1"
key=$( { qemu-system-x86_64 --version; echo "$vmlinuz $mem 1"
	cat "$here/l1-init"; } | sha256sum | cut -c1-16)
l1=$cache/l1-$key
work=$(mktemp -d "${TMPDIR:-/tmp}/l1.XXXXXX")
qemu_pid=
cleanup() {
	[ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT

machine=(-accel tcg -M q35 -cpu EPYC,+svm,-xsave -smp 1 -m "$mem"
	-nodefaults -no-user-config -no-reboot -display none -kernel "$vmlinuz")
append="console=ttyS0 panic=-1 quiet"

build_initrd() {
	local r=$work/root f

	mkdir -p "$r"/{bin,mod,proc,sys,dev,tmp,p,lib64}
	cp "$busybox" "$r/bin/busybox"
	for f in $("$busybox" --list); do
		[ "$f" = busybox ] || ln -s busybox "$r/bin/$f"
	done
	rmdir "$r/lib64" && ln -s p/lib64 "$r/lib64"
	for f in irqbypass kvm kvm-amd virtio virtio_ring \
		virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci \
		virtio_blk; do
		find "$modules" -name "$f.ko" -exec cp {} "$r/mod/" \;
	done
	install -m755 "$here/l1-init" "$r/init"
	(cd "$r" && find . | LC_ALL=C sort |
		cpio -o -H newc --reproducible --quiet -R 0:0) >"$work/initrd"
}

build_state() {
	qemu-img create -q -f qcow2 "$work/state.qcow2" 4G
	truncate -s 1G "$work/payload"
	mkfifo "$work/monitor"
	qemu-system-x86_64 "${machine[@]}" -initrd "$work/initrd" \
		-append "$append" -serial "file:$work/boot.log" \
		-drive "if=none,id=s,format=qcow2,file=$work/state.qcow2" \
		-drive "if=none,id=p,format=raw,readonly=on,file=$work/payload" \
		-device virtio-blk-pci,drive=p -monitor stdio \
		<"$work/monitor" >"$work/monitor.log" 2>&1 &
	qemu_pid=$!
	exec 8>"$work/monitor"
	for _ in $(seq 600); do
		! grep -q L1-READY "$work/boot.log" 2>/dev/null || break
		kill -0 $qemu_pid 2>/dev/null ||
			die "L1 does not start: $(cat "$work/monitor.log")"
		sleep 0.1
	done
	grep -q L1-READY "$work/boot.log" ||
		die "L1 does not come up: $(tail -5 "$work/boot.log")"
	sleep 0.5
	printf 'savevm l1\nquit\n' >&8
	exec 8>&-
	wait $qemu_pid || die "savevm: $(cat "$work/monitor.log")"
	qemu_pid=
}

if [ ! -e "$l1/complete" ]; then
	mkdir -p "$cache"
	exec 9>"$cache/l1.lock"
	flock 9
	if [ ! -e "$l1/complete" ]; then
		build_initrd
		build_state
		rm -rf "$l1" && mkdir -p "$l1"
		mv "$work/initrd" "$work/state.qcow2" "$l1/"
		touch "$l1/complete"
	fi
	exec 9>&-
fi
[ -z "$build" ] || { echo "$l1"; exit 0; }

# The payload.
p=$work/pay/p
mkdir -p "$p"/{bin,lib,lib64}
cp "$script" "$p/script"
for f in "${bins[@]}"; do
	cp "$f" "$p/bin/"
	# "libx.so => /path (0x..)" and the bare path of the loader.
	ldd "$f" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' |
		xargs -r cp -nL -t "$p/lib"
	cp -nL /lib64/ld-linux-x86-64.so.2 "$p/lib64/"
done
for f in "${adds[@]}"; do
	case $f in
	*=*) mkdir -p "$(dirname "$p/${f#*=}")" && cp -a "${f%%=*}" "$p/${f#*=}" ;;
	*) cp -a "$f" "$p/" ;;
	esac
done
for v in "${kernels[@]}"; do
	{ read -r k && read -r m; } < <("$top/tools/fetch-kernel.sh" "$v") ||
		die "no kernel $v"
	mkdir -p "$p/kernel-$v/modules/${m##*/}"
	cp "$k" "$p/kernel-$v/vmlinuz"
	# What a microVM can use; the whole tree is ten times as much.
	cp "$m"/modules.* "$p/kernel-$v/modules/${m##*/}/"
	(cd "$m" && find kernel \( -name '*virtio*' -o -name '*vsock*' -o \
		-name '*failover*' -o -name 'rng-core*' -o -name 'pvpanic*' -o \
		-name 'button.ko*' -o -name 'evdev.ko*' -o -path 'kernel/fs/*' \
		-o -path 'kernel/lib/*' -o -path 'kernel/crypto/*' -o \
		-path 'kernel/arch/x86/crypto/*' \) -type f |
		cpio -pdm --quiet "$p/kernel-$v/modules/${m##*/}")
	[ ! -d "$m/kernel/drivers/virtio" ] ||
		cp -rn "$m/kernel/drivers/virtio" \
			"$p/kernel-$v/modules/${m##*/}/kernel/drivers/"
done
(cd "$work/pay" && find p | LC_ALL=C sort |
	cpio -o -H newc --reproducible --quiet -R 0:0) >"$work/payload"

run=()
if [ -n "$icount" ]; then
	machine=("${machine[@]/EPYC,+svm,-xsave/EPYC,+svm,-xsave,-rdrand,-rdseed}")
	# Both archives start on four bytes: the kernel skips zeros between.
	cat "$l1/initrd" "$work/payload" >"$work/initrd"
	run+=(-icount shift=0,sleep=off -seed 1
		-rtc base=2026-01-01T00:00:00,clock=vm -initrd "$work/initrd"
		-append "$append nokaslr norandmaps")
else
	truncate -s 1G "$work/payload"
	cp --sparse=always "$l1/state.qcow2" "$work/state.qcow2"
	run+=(-initrd "$l1/initrd" -append "$append" -loadvm l1
		-drive "if=none,id=s,format=qcow2,file=$work/state.qcow2"
		-drive "if=none,id=p,format=raw,readonly=on,file=$work/payload"
		-device virtio-blk-pci,drive=p)
fi
mkfifo "$work/in"
timeout "$timeout" qemu-system-x86_64 "${machine[@]}" "${run[@]}" \
	-serial stdio <"$work/in" >"$work/out" 2>"$work/err" &
qemu_pid=$!
exec 7>"$work/in"
if [ -n "$icount" ]; then
	# See l1-init: once the figures are taken, keep its output going.
	(while kill -0 "$qemu_pid" 2>/dev/null; do
		[ ! -s "$work/out" ] || echo >&7
		sleep 1
	done) &
else
	echo >&7
fi
# Show the output as it comes, without the last line, which is ours.
tail --pid=$qemu_pid -f "$work/out" 2>/dev/null | sed -u '/^L1-EXIT:/,$d; s/\r$//'
wait $qemu_pid && status=0 || status=$?
qemu_pid=
exec 7>&-
code=$(sed -n 's/^L1-EXIT:\([0-9]*\).*/\1/p' "$work/out" | tail -n 1)
if [ -z "$code" ]; then
	cat "$work/err" >&2
	[ $status -ne 124 ] || die "no answer from L1 within $timeout s"
	die "L1 ended without a status (QEMU's: $status)"
fi
exit "$code"
