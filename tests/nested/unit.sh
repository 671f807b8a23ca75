#!/bin/bash
# The unit tests of the engines, inside the L1 host, where KVM is a real one:
# those that skip on a paravirtual KVM run here.  Usage: unit.sh TEST-PROGRAM...
set -eu
here=$(cd "$(dirname "$0")" && pwd)
args=()
for t in "$@"; do
	args+=(--bin "$t")
done
script=$(mktemp) && trap 'rm -f "$script"' EXIT
cat >"$script" <<'IN'
fail=0
for t in bin/test_*; do
	# Fewer kicks: an exit costs 0.1 ms here.
	ARCVMM_KICKS=4000 "$t" >/tmp/out 2>&1 || { cat /tmp/out; fail=1; }
	grep -a '^SKIP: ' /tmp/out
	grep -a -E '^\[  (PASSED|FAILED) ' /tmp/out | sed "s,^,  ${t#bin/} (L1) ,"
done
exit $fail
IN
exec "$here/l1.sh" "${args[@]}" --timeout 300 "$script"
