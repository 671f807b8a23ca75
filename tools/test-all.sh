#!/bin/bash
# Run suites (make targets) and add up what they report.
#
# A suite ends with "N passed, N failed, N skipped"; one that does not (a guard
# such as format-check) counts as one case by its exit status. The last line is
# the sum. Arguments are make targets; "CC=clang unit" in one word is allowed.
set -u
cd "$(dirname "$0")/.."
P=0 F=0 S=0
log=$(mktemp) && trap 'rm -f "$log"' EXIT
table=
for suite in "$@"; do
	echo
	echo "== make $suite"
	start=$SECONDS
	# shellcheck disable=SC2086  # a suite may carry variables
	make -s --no-print-directory $suite 2>&1 | tee "$log"
	rc=${PIPESTATUS[0]}
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" |
		tail -n 1)
	if [ -n "$line" ]; then
		read -r p _ f _ s _ <<<"$line"
		# Broken before or after its tests: not a pass.
		if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
	elif [ "$rc" -eq 0 ]; then
		p=1 f=0 s=0
	else
		p=0 f=1 s=0
	fi
	P=$((P + p)) F=$((F + f)) S=$((S + s))
	table+=$(printf '  %-44s %5d passed %3d failed %3d skipped %5ds' \
		"$suite" "$p" "$f" "$s" $((SECONDS - start)))$'\n'
done
echo
printf '%s' "$table"
echo "$P passed, $F failed, $S skipped"
[ "$F" -eq 0 ]
