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
for tool in sh uname cat grep ls tee tty; do
	ln -s busybox "$root/bin/$tool"
done

# Show a command as one would type it, then do it.
show() {
	printf '$ %s\n' "$*" | sed "s|$arcvmm|arcvmm|; s|$root|ROOT|g; s|$kernel|vmlinuz|"
}
run() {
	show arcvmm "$@"
	set +e
	"$arcvmm" "$@"
	status=$?
	set -e
}
want() {
	[ "$status" -eq "$1" ] && return
	echo "the demo failed: exit status $status, expected $1"
	exit 1
}

say "A command in a guest whose root is a directory with busybox"
run run --kernel "$kernel" --root "$root" --boot-timeline build/demo.json -v -- \
	sh -c 'uname -srm; grep MemTotal /proc/meminfo; exit 42'
want 42
echo "  exit status $status: the command's own"

say "A VM in the background, a shell in it, files both ways"
name=demo-$$
trap '"$arcvmm" kill $name 2>/dev/null || true; rm -rf "$root"' EXIT
run run -d --name $name --kernel "$kernel" --root "$root" --serve
want 0
run exec $name -- sh -c 'echo "hello from $(uname -n)" | tee /tmp/note'
want 0
run cp $name:/tmp/note "$root/note"
want 0
run cp "$root/note" $name:/tmp/again
want 0
run exec -t $name -- sh -c 'tty; cat /tmp/again'
want 0
run ps
run stop $name
want 0

say "Where the time went (also as a picture: build/demo.svg)"
sed -n 's/.*"engine": "\(.*\)".*/  engine: \1/p
	s/.*"name": "\(.*\)", "at": \([0-9.]*\).*/\1 \2/p' build/demo.json |
	while read -r milestone at; do
		case $milestone in
		engine:) echo "  engine: $at" ;;
		*) printf '  %-20s %10s ms\n' "$milestone" "$at" ;;
		esac
	done
