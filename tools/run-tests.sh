#!/bin/sh
# Run test programs one after the other and count their cases.
#
# Each program is a cmocka group and prints cmocka's report. A program that
# crashes, hangs (TEST_TIMEOUT seconds, 600) or reports nothing counts as one
# failure. Prints a line per program, then "N passed, N failed, N skipped";
# the three numbers are also appended to the file $TEST_TALLY, when set.
set -u
pass=0 fail=0 skip=0
out=$(mktemp) && trap 'rm -f "$out"' EXIT

# The last number that the sed expression $1 finds, or 0.
number() {
	n=$(sed -n "$1" "$out" | tail -n 1)
	echo "${n:-0}"
}

for t in "$@"; do
	start=$(date +%s)
	timeout "${TEST_TIMEOUT:-600}" "$t" >"$out" 2>&1
	rc=$?
	p=$(grep -c '^\[       OK \]' "$out")
	f=$(number 's/^ *\([0-9][0-9]*\) FAILED TEST(S)$/\1/p')
	s=$(number 's/^\[  SKIPPED \] \([0-9][0-9]*\) test(s).*/\1/p')
	verdict=ok
	if [ "$rc" -ne 0 ] || [ "$f" -ne 0 ] || [ $((p + s)) -eq 0 ]; then
		cat "$out"
		verdict="FAIL (exit $rc)"
		[ "$f" -ne 0 ] || f=1
	else
		grep -E '^SKIP: ' "$out"
	fi
	printf '  %-32s %-4s %4d passed %d failed %d skipped  %ds\n' \
		"${t##*/}" "$verdict" "$p" "$f" "$s" $(($(date +%s) - start))
	pass=$((pass + p)) fail=$((fail + f)) skip=$((skip + s))
done
[ -z "${TEST_TALLY:-}" ] || echo "$pass $fail $skip" >>"$TEST_TALLY"
echo "$pass passed, $fail failed, $skip skipped"
[ "$fail" -eq 0 ]
