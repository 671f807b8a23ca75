#!/bin/bash
# make demo: boot a stock Debian kernel and run a command in it.
#
#     tools/demo.sh build/gcc/arcvmm
set -eu
cd "$(dirname "$0")/.."
arcvmm=$1
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "A stock Debian kernel, as its package ships it"
paths=$(tools/fetch-kernel.sh 6.1)
kernel=$(head -n 1 <<<"$paths")
echo "  $kernel"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc}
cp /bin/busybox "$root/bin/"
for tool in sh uname cat nproc free grep ls; do
	ln -s busybox "$root/bin/$tool"
done

run() {
	printf '$ arcvmm run'
	printf ' %q' "$@" | sed "s|$root|ROOT|; s|$kernel|vmlinuz|"
	echo
	set +e
	"$arcvmm" run "$@"
	status=$?
	set -e
}

say "A command in a guest made of a directory with busybox"
run --kernel "$kernel" --root "$root" --boot-timeline build/demo.json -v -- \
	sh -c 'uname -srm; echo "CPUs: $(nproc)"; grep MemTotal /proc/meminfo;
	echo "init has been up for $(cut -d" " -f1 /proc/uptime 2>/dev/null || cat /proc/uptime) s"'
[ "$status" -eq 0 ] || { echo "the demo failed: exit status $status"; exit 1; }

say "Its exit status is ours"
run --kernel "$kernel" --root "$root" -- sh -c 'exit 42'
echo "  exit status: $status"
[ "$status" -eq 42 ] || { echo "the demo failed: expected 42"; exit 1; }

say "Milestones (also as a picture: build/demo.svg)"
sed -n 's/.*"engine": "\(.*\)".*/  engine \1/p
	s/.*"name": "\(.*\)", "at": \([0-9.]*\).*/\1 \2/p' build/demo.json |
	while read -r name at; do
		if [ "$name" = engine ]; then echo "  engine: $at"; else
			printf '  %-20s %10s ms\n' "$name" "$at"; fi
	done
