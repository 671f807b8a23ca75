#!/bin/sh
# Fetch a Debian cloud kernel as distributed and print where it lies.
#
#   fetch-kernel.sh 6.1|6.12     -> two lines: the vmlinuz, the modules folder
#
# The package is the newest that the meta package names, taken by apt-get from
# the sources this machine has. It is unpacked once into the cache and reused
# from then on without a network; ARCVMM_FETCH=new looks for a newer one.
set -eu

die() {
	echo "fetch-kernel: $*" >&2
	exit 1
}

case ${1:-} in
6.1) meta=linux-image-cloud-amd64 ;;
6.12) meta=linux-image-6.12-cloud-amd64 ;;
*) die "usage: fetch-kernel.sh 6.1|6.12" ;;
esac
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arcvmm-test}
dir=$cache/kernel-$1

# Prints the paths when $dir holds a whole package.
have() {
	[ -e "$dir/complete" ] || return 1
	image=$(ls "$dir"/boot/vmlinuz-* 2>/dev/null | head -n 1)
	[ -n "$image" ] || return 1
	release=${image##*/vmlinuz-}
	[ -d "$dir/lib/modules/$release" ] || return 1
	echo "$image"
	echo "$dir/lib/modules/$release"
}

if [ "${ARCVMM_FETCH:-}" != new ]; then
	have && exit 0
fi
mkdir -p "$cache"
exec 9>"$dir.lock"
flock 9
if [ "${ARCVMM_FETCH:-}" != new ]; then
	have && exit 0 # another process was here first
fi

dep() {
	apt-cache depends --no-recommends --no-suggests "$meta" 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}
pkg=$(dep)
if [ -z "$pkg" ]; then
	apt-get update -qq >&2 || die "apt-get update failed, and nothing is cached"
	pkg=$(dep)
fi
[ -n "$pkg" ] || die "no package source here has $meta (6.12 is in backports)"
tmp=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
(cd "$tmp" && apt-get -o APT::Sandbox::User=root download -qq "$pkg" >&2) ||
	{ apt-get update -qq >&2 &&
		(cd "$tmp" && apt-get -o APT::Sandbox::User=root download -qq "$pkg" >&2); } ||
	die "cannot download $pkg"
mkdir "$tmp/root"
dpkg -x "$tmp"/*.deb "$tmp/root"
rm -f "$tmp"/*.deb
# The package runs depmod on installation; we never install it.
release=$(basename "$tmp"/root/boot/vmlinuz-*)
release=${release#vmlinuz-}
depmod -b "$tmp/root" "$release" || die "depmod failed for $release"
touch "$tmp/root/complete"
rm -rf "$dir"
mv "$tmp/root" "$dir"
have || die "$pkg holds no kernel"
