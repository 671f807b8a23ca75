#!/bin/bash
# How long from process start to the guest's first instruction, and how much
# memory of its own the monitor takes; arcvmm and QEMU's microvm in alternation.
#
#   start.sh [-n N] [ARCVMM]      N runs of each, median (min-max); 15
#
# Start: a guest whose first instructions write to ports that end the monitor,
# so that process time is start, first instruction and exit. For arcvmm the
# milestone before the first KVM_RUN is given too, with the same guest and with
# a stock kernel out of a warm cache; and beside it the floor: a program that does
# nothing but start and make the KVM calls (floor/kvm_calls.c).
# Memory: a guest of 128 MiB that halts; private pages of the process without
# the mapping that is the guest's RAM.
#
# The engine is KVM, whatever kind it is here: the guests need a few
# instructions only. The line "machine" says what it is. (-cpu qemu64: QEMU does
# not start with -cpu host on a paravirtual KVM.)
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
n=15
while getopts n: opt; do
	case $opt in
	n) n=$OPTARG ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
arcvmm=$(realpath "${1:-$top/build/gcc/arcvmm}")
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
gcc -O1 -o stopwatch "$top/tests/nested/stopwatch.c"
gcc -O2 -static-pie -o floor "$top/bench/floor/kvm_calls.c"

# The same bytes run in 32-bit and in 64-bit mode.
cat >guest.S <<'IN'
#ifdef PVH
	.section .note.Xen, "a", @note
	.long 4, 8, 18
	.asciz "Xen"
	.quad _start
#endif
	.text
	.globl _start
_start:
#ifdef END
	.byte 0x66, 0xba; .short 0xf4	/* QEMU's isa-debug-exit */
	mov $1, %al
	out %al, %dx
	.byte 0x66, 0xba; .short 0x602	/* arcvmm's reset register */
	out %al, %dx
#endif
	cli
1:	hlt
	jmp 1b
IN
build() { # name flags
	local out=$1
	shift
	gcc -nostdlib -static -no-pie -Wl,-Ttext=0x200000 -Wl,--build-id=none \
		-Wl,-z,noexecstack "$@" -o "$out" guest.S
}
build end64.elf -DEND
build end.elf -DEND -DPVH
build idle64.elf
build idle.elf -DPVH

arc() { # kernel, options
	"$arcvmm" run --engine kvm --no-init --no-rng --console off \
		--mem 128M --kernel "$@" </dev/null
}
qemu=(qemu-system-x86_64 -M microvm,acpi=on,rtc=on -accel kvm -cpu qemu64 -m 128
	-nodefaults -no-user-config -no-reboot -display none)

median() { # of the numbers on stdin, in $1-ths
	sort -n | awk -v s="$1" '{ v[NR] = $1 / s } END {
		if (NR) printf "%.3f (%.3f-%.3f) of %d\n", v[int((NR + 1) / 2)],
			v[1], v[NR], NR
		else print "none" }'
}
wall() { # command: nanoseconds from fork to exit
	./stopwatch "no such line" "$@" 2>/dev/null |
		sed -n 's/.* end \([0-9]*\) .*/\1/p'
}
milestone() { # file
	sed -n 's/.*"first-instruction", "at": \([0-9.]*\).*/\1/p' "$1"
}

echo "machine: $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)," \
	"$(nproc) CPUs, load $(cut -d' ' -f1 /proc/loadavg);" \
	"$("$arcvmm" doctor | grep -m1 ' kvm ' | tr -s ' ' | cut -c1-70)"
export -f arc
export arcvmm
for _ in $(seq "$n"); do
	wall bash -c 'arc end64.elf' >>arc64
	wall bash -c 'arc end.elf' >>arcpvh
	wall bash -c true >>bash
	arc end64.elf --boot-timeline t.json >/dev/null 2>&1 || true
	milestone t.json >>tiny
	./floor >>floors
	timeout 20 "${qemu[@]}" -kernel end.elf \
		-device isa-debug-exit,iobase=0xf4 </dev/null \
		>/dev/null 2>&1 && rc=0 || rc=$?
	# 3: ended by the guest.
	[ $rc -ne 3 ] || wall "${qemu[@]}" -kernel end.elf \
		-device isa-debug-exit,iobase=0xf4 >>qemu
done
base=$(sort -n bash | sed -n "$(((n + 1) / 2))p")
for f in arc64 arcpvh; do # without the shell around it
	awk -v b="$base" '{ print $1 - b }' $f >$f.net
done
echo "start to exit, tiny guest, ms:"
echo "  arcvmm, 64-bit entry   $(median 1000000 <arc64.net)"
echo "  arcvmm, PVH entry      $(median 1000000 <arcpvh.net)"
touch qemu
echo "  qemu microvm, PVH      $(median 1000000 <qemu)"
echo "start to first instruction, ms (arcvmm: its milestone):"
echo "  floor                  $(cut -d' ' -f1 floors | median 1)"
echo "  of that KVM's calls    $(cut -d' ' -f2 floors | median 1)"
echo "  tiny guest             $(median 1 <tiny)"
if { read -r k && read -r m; } < <("$top/tools/fetch-kernel.sh" 6.1); then
	for _ in $(seq "$((n + 1))"); do
		"$arcvmm" run --engine kvm --kernel "$k" --modules "$m" \
			--mem 128M --console off --timeout 1 \
			--boot-timeline t.json -- /none \
			</dev/null >/dev/null 2>&1 || true
		milestone t.json >>stock
	done
	# The first one filled the cache.
	echo "  Debian 6.1, warm cache $(tail -n +2 stock | median 1)"
fi

# Private kB of a process, guest RAM (one mapping of 128 MiB) aside.
private() {
	awk '/^[0-9a-f]+-[0-9a-f]+ / { skip = 0 }
		/^Size:/ { skip = $2 >= 131072 }
		/^Private_(Clean|Dirty):/ && !skip { sum += $2 }
		END { print sum }' "/proc/$1/smaps"
}
"$arcvmm" run --engine kvm --no-init --no-rng --console off --mem 128M \
	--kernel idle64.elf </dev/null >/dev/null 2>&1 &
pid=$!
sleep 1
echo "private memory beside guest RAM, kB (128 MiB guest, halted):"
echo "  arcvmm                 $(private $pid)"
kill -9 $pid; wait $pid 2>/dev/null || true
timeout 20 "${qemu[@]}" -kernel idle.elf </dev/null >/dev/null 2>&1 &
pid=$!
sleep 1
qpid=$(pgrep -P $pid || echo $pid)
echo "  qemu microvm           $(private "$qpid")"
kill "$qpid" 2>/dev/null || true
wait $pid 2>/dev/null || true
