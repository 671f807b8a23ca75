#!/bin/bash
# GDB against a booting stock kernel: run.sh ARCVMM ENGINE VERSION
#
# Two vCPUs, no KASLR. One boot asks the guest for its symbols; in the second GDB
# stops at start_kernel (hardware breakpoint), steps, stops at kernel_init
# (software breakpoint), watches jiffies, sees both threads and detaches; then
# the guest must go on and finish.
set -eu
cd "$(dirname "$0")/../.."
arcvmm=$(realpath "$1") engine=$2
command -v gdb >/dev/null || {
	echo "SKIP: gdb: gdb is not installed"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin"
cp "$(command -v busybox)" "$work/root/bin/"
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$3")

run() {
	timeout 120 "$arcvmm" run --engine "$engine" --kernel "$kernel" \
		--modules "$modules" --root "$work/root" --cpus 2 \
		--cmdline nokaslr "$@" </dev/null
}
run -- /bin/busybox cat /proc/kallsyms >"$work/syms" 2>/dev/null
sym() {
	awk -v n="$1" '$3 == n { print "0x" $1; exit }' "$work/syms"
}
run --gdb "unix:$work/gdb" --gdb-wait -- /bin/busybox echo guest is done \
	>"$work/guest" 2>&1 &
guest=$!
for _ in $(seq 100); do
	[ -S "$work/gdb" ] && break
	sleep 0.1
done
cat >"$work/script" <<EOF
set pagination off
set confirm off
target remote $work/gdb
hbreak *$(sym start_kernel)
continue
printf "at start %#lx\n", \$rip
stepi
printf "stepped %d\n", \$rip != $(sym start_kernel)
delete
break *$(sym kernel_init)
continue
printf "at init %#lx\n", \$rip
delete
watch *(long *)$(sym jiffies)
continue
delete
break *$(sym do_sys_openat2)
continue
info threads
printf "cpl %d\n", \$cs & 3
delete
detach
EOF
timeout 100 gdb -batch -nx -x "$work/script" >"$work/out" 2>&1 || true
wait $guest || true

pass=0 fail=0
want() {
	if grep -qE "$2" "$1"; then
		echo "ok: $3"
		pass=$((pass + 1))
	else
		echo "FAIL: $3"
		fail=$((fail + 1))
	fi
}
want "$work/out" "at start $(sym start_kernel)" "hardware breakpoint"
want "$work/out" "stepped 1" "single step"
want "$work/out" "at init $(sym kernel_init)" "software breakpoint"
want "$work/out" "New value" "watchpoint"
want "$work/out" "vCPU 1" "threads"
want "$work/out" "cpl 0" "segment registers"
want "$work/guest" "guest is done" "the guest goes on after detach"
[ $fail = 0 ] || cat "$work/out" "$work/guest"
echo "$pass passed, $fail failed, 0 skipped"
[ $fail = 0 ]
