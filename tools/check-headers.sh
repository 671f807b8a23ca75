#!/bin/sh
# Each header compiles alone. Arguments: the compiler and its flags.
set -u
cd "$(dirname "$0")/.."
bad=0
for h in $(git ls-files -co --exclude-standard '*.h'); do
	printf '#include "%s"\n' "$h" |
		"$@" -I. -Iguest -Itests/unit -Wno-unused-function -fsyntax-only -x c - || {
		echo "$h: does not compile alone"
		bad=1
	}
done
exit $bad
