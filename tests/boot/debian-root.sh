#!/bin/bash
# A Debian 12 of the packages as they are, made once: debian-root.sh [PACKAGE...]
#
# debootstrap's smallest variant and the packages named, as a directory and as
# a disk image, in $ARCVMM_CACHE (default ~/.cache/arcvmm-test); prints where:
# DIR/root and DIR/image. The root account has no password, the host is
# "debian". Needs root, debootstrap and a package source.
set -eu
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arcvmm-test}
packages=$(echo "$@" | tr ' ' ,)
key=$({ cat "$0" && echo "$packages"; } | sha256sum | cut -c1-16)
dir=$cache/debian-12-$key

if [ ! -e "$dir/complete" ]; then
	[ "$(id -u)" -eq 0 ] || { echo "debian-root: debootstrap needs root" >&2; exit 1; }
	mkdir -p "$cache"
	exec 9>"$dir.lock"
	flock 9
fi
if [ ! -e "$dir/complete" ]; then
	tmp=$(mktemp -d "$cache/debian.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	chmod 755 "$tmp"
	debootstrap --variant=minbase ${packages:+--include="$packages"} \
		bookworm "$tmp/root" >"$tmp/log" 2>&1 ||
		{ tail -n 20 "$tmp/log" "$tmp/root/debootstrap/debootstrap.log" >&2
			exit 1; }
	rm -rf "$tmp"/root/var/cache/apt/archives/*.deb "$tmp"/root/var/lib/apt/lists/*
	chroot "$tmp/root" passwd -q -d root
	echo debian >"$tmp/root/etc/hostname"
	: >"$tmp/root/etc/fstab"
	mke2fs -q -F -t ext4 -L debian -d "$tmp/root" "$tmp/image" 1G \
		>&2
	touch "$tmp/complete"
	rm -rf "$dir"
	mv "$tmp" "$dir"
	trap - EXIT
fi
echo "$dir"
