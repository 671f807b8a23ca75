#!/bin/sh
# The man page from its template and what the program says of itself:
# make-man.sh ARCVMM TEMPLATE VERSION
set -eu
arcvmm=$1 template=$2 version=$3
verbs=$(mktemp) && trap 'rm -f "$verbs"' EXIT

# Help text to roff: "  --option ARG   what" becomes a tagged paragraph, a
# line without indentation text, "Title:" a bold line.
roff() {
	sed -e 's/\\/\\\\/g' -e 's/-/\\-/g' -e "s/^\\([.']\\)/\\\\\\&\\1/" |
		awk '
	/^usage: / { sub(/^usage: /, ""); print ".B " $0; print ".br"; next }
	/^[A-Z].*:$/ { print ".PP"; print ".B " $0; next }
	/^    [^ ]/ || /^  [^ ]/ {
		sub(/^ +/, "")
		split($0, part, /  +/)
		tag = part[1]
		rest = substr($0, length(tag) + 1)
		sub(/^ +/, "", rest)
		print ".TP"; print ".B " tag; print rest
		next
	}
	/^$/ { print ".PP"; next }
	{ sub(/^ +/, ""); print }'
}

for verb in $("$arcvmm" help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'); do
	echo ".SS $verb"
	"$arcvmm" help "$verb" | roff
done >"$verbs"
sed -e "s/@VERSION@/$version/" -e '/^\.\\"/!{/@VERBS@/{r '"$verbs"'
d
}}' "$template"
