#!/bin/bash
# Deterministic figures: the virtual time of a boot of Debian 6.1 in the L1 host
# when QEMU counts instructions (one nanosecond each), and its exits. The load of
# the machine does not reach them: the same code differs by some 0.003 %.
#
#   icount.sh [-q] [-k KERNEL] [ARCVMM]     -q: QEMU's microvm too
#
# Prints, for each VMM: nanoseconds from process start to the command's line,
# guest uptime there, exits to user space and all exits, counted in a run of
# their own because counting costs time.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
qemu= kernel=6.1
while getopts qk: opt; do
	case $opt in
	q) qemu=1 ;;
	k) kernel=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
arcvmm=${1:-$top/build/gcc/arcvmm}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
. "$here/roots.sh"
make_root
gcc -O1 -static -o "$work/stopwatch" "$here/stopwatch.c"
args=(--icount --timeout 900 --kernel "$kernel" --bin "$arcvmm"
	--add "$work/stopwatch=bin/stopwatch" --add "$root=root")
if [ -n "$qemu" ]; then
	qemu_files "$kernel"
	args+=(--bin "$(command -v qemu-system-x86_64)" --add "$work/fw=fw"
		--add "$work/initrd-$kernel.cpio=qemu.cpio")
fi
cat >"$work/script" <<IN
k=$kernel qemu=$qemu
IN
cat >>"$work/script" <<'IN'
t=/sys/kernel/tracing
mount -t tracefs t $t
arcvmm_run() {
	stopwatch "hello " arcvmm run --engine kvm --mem 256M \
		--kernel kernel-$k/vmlinuz --modules kernel-$k/modules/* \
		--cmdline "nokaslr norandmaps" --root root -- hello
}
qemu_run() {
	stopwatch -k "hello " qemu-system-x86_64 -L fw -accel kvm \
		-M microvm,acpi=on,rtc=on -cpu host -m 256 -smp 1 -nodefaults \
		-no-user-config -no-reboot -display none -serial stdio \
		-kernel kernel-$k/vmlinuz -initrd qemu.cpio -append \
		"console=ttyS0 quiet cryptomgr.notests reboot=t panic=-1 nokaslr norandmaps"
}
count() { # event
	sed -n 's/.*hitcount: *\([0-9]*\).*/\1/p' $t/events/kvm/$1/hist |
		{ n=0; while read -r x; do n=$((n + x)); done; echo $n; }
}
for vmm in arcvmm ${qemu:+qemu}; do
	${vmm}_run >/tmp/cold 2>/tmp/err || cat /tmp/err
	${vmm}_run >/tmp/warm 2>/tmp/err || cat /tmp/err
	echo "$vmm first: $(cat /tmp/cold)"
	echo "$vmm again: $(cat /tmp/warm)"
	echo 'hist:keys=reason' >$t/events/kvm/kvm_userspace_exit/trigger
	echo 'hist:keys=exit_reason' >$t/events/kvm/kvm_exit/trigger
	${vmm}_run >/tmp/counted 2>/dev/null
	echo "$vmm exits to user space: $(count kvm_userspace_exit), all:" \
		"$(count kvm_exit)"
	grep -h '^{' $t/events/kvm/kvm_userspace_exit/hist \
		$t/events/kvm/kvm_exit/hist | sed 's/[{}]//g; s/ \+/ /g' | sort -t: -k3nr | head -n 12
	echo '!hist:keys=reason' >$t/events/kvm/kvm_userspace_exit/trigger
	echo '!hist:keys=exit_reason' >$t/events/kvm/kvm_exit/trigger
done
IN
"$here/l1.sh" "${args[@]}" "$work/script"
