#!/bin/bash
# CPU, memory, system calls, faults and processes: natively, in a guest on the
# software CPU, and in one under KVM where KVM is fit: cpu.sh ARCVMM [VERSION]
#
# One static program (bench/guest/cpu.c) does the same everywhere; the table
# shows its figures and how many times slower than native each is.
set -eu
cd "$(dirname "$0")/.."
arcvmm=$(realpath "$1") version=${2:-6.1}
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin"
musl-gcc -static -O2 -o "$work/root/bin/cpu" bench/guest/cpu.c
guest() {
	"$arcvmm" run --engine "$1" --kernel "$kernel" --modules "$modules" \
		--root "$work/root" --timeout 300 -- /bin/cpu
}
"$work/root/bin/cpu" >"$work/native"
guest soft >"$work/soft"
engines="native soft"
if "$arcvmm" doctor | grep -q '^ok  *kvm '; then
	guest kvm >"$work/kvm"
	engines="$engines kvm"
else
	echo "(KVM here is not fit for stock kernels: left out)"
fi
printf '%-18s %-18s' '' unit
printf '%18s' $engines
echo
while read -r name value unit; do
	printf '%-18s %-18s%18s' "$name" "$unit" "$value"
	for e in $engines; do
		[ "$e" != native ] || continue
		awk -v n="$name" -v native="$value" '$1 == n {
			printf "%18s", sprintf("%s /%.1f", $2, native / $2) }' \
			"$work/$e"
	done
	echo
done <"$work/native"
