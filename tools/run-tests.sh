#!/bin/sh
# Run test programs one after the other and count their cases.
#
# Each program is a cmocka group; its TAP-like lines are summed up. A program
# that crashes or prints no closing line counts as one failure. Prints one line
# per program and, last, "N passed, N failed, N skipped".
set -u
pass=0 fail=0 skip=0
out=$(mktemp) && trap 'rm -f "$out"' EXIT
for t in "$@"; do
	start=$(date +%s)
	timeout "${TEST_TIMEOUT:-600}" "$t" >"$out" 2>&1
	rc=$?
	p=$(grep -c '^\[       OK \]' "$out")
	f=$(grep -c '^\[  FAILED  \] [a-z_A-Z0-9]*$' "$out")
	s=$(grep -c '^\[  SKIPPED \] [a-z_A-Z0-9]*$' "$out")
	# cmocka lists failed and skipped names once more in its summary.
	nf=$(sed -n 's/^\[  FAILED  \] tests: \([0-9]*\).*/&/p; s/^ \([0-9]*\) FAILED TEST.*/\1/p' "$out" | tail -1)
	ns=$(sed -n 's/^\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$out" | tail -1)
	case $nf in ''|*[!0-9]*) nf=0 ;; esac
	case $ns in ''|*[!0-9]*) ns=0 ;; esac
	f=$nf s=$ns
	if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	if [ "$rc" -ne 0 ] || [ "$f" -ne 0 ]; then
		cat "$out"
		verdict="FAIL (exit $rc)"
	else
		verdict=ok
		grep -E '^SKIP: ' "$out"
	fi
	printf '  %-44s %-5s %3d passed %d failed %d skipped  %ds\n' \
		"${t##*/}" "$verdict" "$p" "$f" "$s" $(($(date +%s) - start))
	pass=$((pass + p)) fail=$((fail + f)) skip=$((skip + s))
done
[ -n "${TEST_TALLY:-}" ] && echo "$pass $fail $skip" >>"$TEST_TALLY"
echo "$pass passed, $fail failed, $skip skipped"
[ "$fail" -eq 0 ]
