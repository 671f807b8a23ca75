#!/bin/bash
# CPU, memory, system calls, faults and processes: natively, in a guest on the
# software CPU, and in one under KVM where KVM is fit:
#
#     cpu.sh [--nested] ARCVMM [VERSION]
#
# With --nested all of it happens in the L1 host of tests/nested, where KVM is
# fit: natively there, and in a guest under KVM. (L1's CPU is QEMU's: its figures
# compare with each other only.)
#
# One static program (bench/guest/cpu.c) does the same everywhere; the table
# shows its figures and how many times slower than native each is.
set -eu
cd "$(dirname "$0")/.."
nested=
if [ "$1" = --nested ]; then
	nested=1
	shift
fi
arcvmm=$(realpath "$1") version=${2:-6.1}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin"
musl-gcc -static -O2 -o "$work/root/bin/cpu" bench/guest/cpu.c

here() {
	local kernel modules
	{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
	guest() {
		"$arcvmm" run --engine "$1" --kernel "$kernel" \
			--modules "$modules" --root "$work/root" \
			--timeout 300 -- /bin/cpu
	}
	"$work/root/bin/cpu" >"$work/native"
	guest soft >"$work/soft"
	engines="native soft"
	if "$arcvmm" doctor | grep -q '^ok  *kvm '; then
		guest kvm >"$work/kvm"
		engines="$engines kvm"
	else
		echo "(KVM here is not fit for stock kernels: --nested shows it)"
	fi
}

in_l1() {
	cat >"$work/script" <<IN
root/bin/cpu | sed 's/^/native /'
arcvmm run --engine kvm --kernel kernel-$version/vmlinuz \
	--modules kernel-$version/modules/* --root root --timeout 400 \
	-- /bin/cpu >/tmp/kvm || exit 1
sed 's/^/kvm /' /tmp/kvm
IN
	tests/nested/try.sh --timeout 600 --bin "$arcvmm" --kernel "$version" \
		--add "$work/root=root" "$work/script" >"$work/l1" ||
		{ cat "$work/l1" >&2; return 1; }
	for e in native kvm; do
		sed -n "s/^$e //p" "$work/l1" >"$work/$e"
	done
	engines="native kvm"
	echo "(in the L1 host: an emulated CPU with emulated SVM)"
}

if [ -n "$nested" ]; then in_l1; else here; fi
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
