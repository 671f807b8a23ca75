#!/bin/sh
# Run each fuzzer for some seconds: run-fuzzers.sh SECONDS PROGRAM...
#
# A corpus is kept between runs in $ARCVMM_CACHE/fuzz (~/.cache/arcvmm-test).
# A finding is left in build/fuzz-findings and its output shown. Prints
# executions per fuzzer, then the closing line.
set -u
seconds=$1
shift
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/arcvmm-test}/fuzz
findings=build/fuzz-findings
mkdir -p "$findings"
pass=0 fail=0
log=$(mktemp) && trap 'rm -f "$log"' EXIT
for f in "$@"; do
	name=${f##*/}
	mkdir -p "$cache/$name"
	if timeout $((seconds + 120)) "$f" -max_total_time="$seconds" \
		-timeout=20 -rss_limit_mb=3072 -max_len=65536 \
		-artifact_prefix="$findings/$name-" \
		"$cache/$name" >"$log" 2>&1; then
		pass=$((pass + 1)) verdict=ok
	else
		fail=$((fail + 1)) verdict=FINDING
		tail -n 60 "$log"
	fi
	execs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log")
	cov=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	printf '  %-28s %-8s %12s executions, %s edges\n' "$name" "$verdict" \
		"${execs:-?}" "${cov:-?}"
done
echo "$pass passed, $fail failed, 0 skipped"
[ "$fail" -eq 0 ]
