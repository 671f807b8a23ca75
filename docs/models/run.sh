#!/bin/bash
# Check the models with Spin: the protocol must hold, every mutant must fail.
set -eu
cd "$(dirname "$0")"
command -v spin >/dev/null || {
	echo "SKIP: models: no spin"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}
model=$PWD/vsock.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# verify DEFINES...: prints "holds" or "fails", and the states seen.
verify() {
	spin -a "$@" "$model" >spin.log 2>&1 || { cat spin.log; exit 1; }
	${CC:-gcc} -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=1024 -o pan pan.c
	./pan -E -m2000000 >pan.log 2>&1 || true
	grep -q 'max search depth too small' pan.log &&
		{ echo "search depth too small"; exit 1; }
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log)
	if grep -q 'errors: 0' pan.log; then result=holds; else result=fails; fi
}
passed=0 failed=0
expect() {
	local want=$1 name=$2
	shift 2
	verify "$@"
	printf '  %-34s %-6s %12s states\n' "$name" "$result" "${states:-?}"
	if [ $result = "$want" ]; then
		passed=$((passed + 1))
	else
		echo "  ^ should be: $want"
		failed=$((failed + 1))
	fi
}

oneway="-DUPDATES=0 -DWINDOW=3 -DNTX=3 -DNRX=1"
expect holds "both ways, window 2"
expect holds "both ways, window 1" -DWINDOW=1 -DNTX=2
expect holds "host to guest, window 1" -DWINDOW=1 -DNTX=1 -DNRX=3
# shellcheck disable=SC2086
expect holds "guest to host, no updates" $oneway
expect holds "large window, no updates" -DUPDATES=0 -DWINDOW=4 -DNTX=2 -DNRX=4
for m in NO_FENCE NO_RECHECK LATE_DRAIN; do
	# shellcheck disable=SC2086
	expect fails "mutant $m" $oneway -D$m
done
for m in NO_REARM NO_CREDIT_WAKE NO_USED_FENCE NO_UPDATE; do
	expect fails "mutant $m" -DNTX=1 -D$m
done
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
