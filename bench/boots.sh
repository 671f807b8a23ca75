#!/bin/bash
# How many of N boots of a stock kernel reach a command and end in order, and
# how long they take: boots.sh ARCVMM ENGINE VERSION CPUS N [PARALLEL]
set -u
cd "$(dirname "$0")/.."
arcvmm=$(realpath "$1") engine=$2 version=$3 cpus=$4 n=$5 parallel=${6:-1}
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin" && cp "$(command -v busybox)" "$work/root/bin/busybox"
ln -s busybox "$work/root/bin/sh"
export arcvmm engine kernel modules cpus work XDG_RUNTIME_DIR="$work"
one() {
	start=$(date +%s%N)
	out=$("$arcvmm" run --engine "$engine" --kernel "$kernel" \
		--modules "$modules" --cpus "$cpus" --root "$work/root" \
		--timeout 120 -- sh -c 'busybox nproc; exit 42' 2>"$work/err.$1")
	rc=$?
	ms=$((($(date +%s%N) - start) / 1000000))
	if [ $rc -eq 42 ] && [ "$out" = "$cpus" ]; then
		echo "ok $ms" >>"$work/log"
	else
		echo "bad $ms" >>"$work/log"
		echo "boot $1: exit $rc, said '$out'" >&2
		cat "$work/err.$1" >&2
	fi
}
export -f one
seq "$n" | xargs -P "$parallel" -I{} bash -c 'one {}'
sort -k2n "$work/log" | awk -v what="$engine $version, $cpus vCPUs" '
	/^ok/ { t[++n] = $2 }
	END { printf "%s: %d of %d boots; ms min %d median %d max %d\n", what,
		n, NR, t[1], t[int((n + 1) / 2)], t[n] }'
! grep -q '^bad' "$work/log"
