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
passed=0 failed=0 skipped=0
for t in bin/test_*; do
	bad=0
	"$t" >/tmp/out 2>&1 || { cat /tmp/out; bad=1; }
	grep -a -E '^SKIP: | moves between ' /tmp/out
	p=$(grep -a -c '^\[       OK \]' /tmp/out)
	s=$(grep -a -c '^SKIP: ' /tmp/out)
	f=$(grep -a -c '^\[  FAILED  \] [a-z]' /tmp/out)
	[ $bad -eq 0 ] || [ "$f" -gt 0 ] || f=1
	[ $((p + s)) -gt 0 ] || f=1
	echo "  ${t#bin/} (L1): $p passed, $f failed, $s skipped"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
IN
"$here/try.sh" "${args[@]}" --timeout 400 "$work/script"
