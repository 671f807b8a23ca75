#!/bin/bash
# Programs that judge a guest's CPU from inside:
#     programs.sh ARCVMM ENGINE VERSION CPUS DIRECTORY [ROUNDS]
#
# DIRECTORY holds atomics, newcode and ia32 (tests/guest). They run in a guest;
# ia32 also here, and what it computed must be the same.
set -eu
cd "$(dirname "$0")/../.."
arcvmm=$(realpath "$1") engine=$2 version=$3 cpus=$4 dir=$5 rounds=${6:-8}
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/bin"
cp "$dir"/{atomics,newcode,ia32} "$(command -v busybox)" "$work/root/bin/"
ln -s busybox "$work/root/bin/sh"
passed=0 failed=0
for program in atomics newcode ia32; do
	start=$SECONDS good=1 note=
	"$arcvmm" run --engine "$engine" --cpus "$cpus" --kernel "$kernel" \
		--modules "$modules" --root "$work/root" \
		--timeout "${GUEST_TIMEOUT:-300}" -- "$program" "$rounds" \
		>"$work/out" 2>"$work/err" || good=
	grep -q "^$program: [1-9][0-9]* passed, 0 failed" "$work/out" || good=
	if [ "$program" = ia32 ]; then
		# The host may have no 32-bit system calls.
		if "$dir/ia32" >"$work/here" 2>/dev/null; then
			diff <(grep ^value "$work/here") \
				<(grep ^value "$work/out") || good=
			note=", the same values as here"
		else
			note=" (not comparable here)"
		fi
	fi
	if [ -n "$good" ]; then
		passed=$((passed + 1))
		[ -z "${VERBOSE:-}" ] || cat "$work/out"
	else
		failed=$((failed + 1))
		cat "$work/out" "$work/err"
		note=
	fi
	echo "$(tail -n 1 "$work/out")$note; $engine, $version, $cpus CPUs," \
		"$((SECONDS - start)) s"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
