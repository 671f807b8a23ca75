#!/bin/bash
# The unit tests of the engines, inside the L1 host, where KVM is a real one:
# those that skip on a paravirtual KVM run here.  Usage: unit.sh TEST-PROGRAM...
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
. "$here/roots.sh"
make_root
make_initrd
args=(--kernel 6.1 --add "$work/initrd=initrd")
for t in "$@"; do
	args+=(--bin "$t")
done
cat >"$work/script" <<'IN'
# Fewer kicks: an exit costs 0.1 ms here.
export ARCVMM_KICKS=4000
export ARCVMM_TEST_KERNEL=/p/kernel-6.1/vmlinuz ARCVMM_TEST_INITRD=/p/initrd
fail=0
for t in bin/test_*; do
	"$t" >/tmp/out 2>&1 || { cat /tmp/out; fail=1; }
	grep -a -E '^SKIP: | moves between ' /tmp/out
	grep -a -E '^\[  (PASSED|FAILED) ' /tmp/out | sed "s,^,  ${t#bin/} (L1) ,"
done
exit $fail
IN
"$here/l1.sh" "${args[@]}" --timeout 400 "$work/script"
