#!/bin/sh
# Install what the build, the demo and the tests need, from Debian's packages.
#
# Arguments: "build" (compiler and libraries), "run" (what the demo needs
# besides), "test" (judges and peers for the tests). Quiet when all is there.
set -eu

build="gcc make pkg-config libc6-dev binutils musl-tools linux-libc-dev
	liburing-dev libseccomp-dev libjansson-dev libzstd-dev liblz4-dev
	zlib1g-dev liblzma-dev libbz2-dev liblzo2-dev"
run="busybox-static"
test="libcmocka-dev clang clang-format lld libclang-rt-14-dev libzydis-dev
	qemu-system-x86 qemu-utils acpica-tools spin cpio e2fsprogs kmod xz-utils
	gdb debootstrap passt python3 jq file procps libc6-dev-i386 lib32gcc-12-dev"

want=
for group in "$@"; do
	case $group in
	build) want="$want $build" ;;
	run) want="$want $run" ;;
	test) want="$want $test" ;;
	*) echo "deps.sh: unknown group '$group': build, run or test" >&2; exit 2 ;;
	esac
done

missing=
for p in $want; do
	dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' ||
		missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "deps.sh: this is not Debian; install yourself:$missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || {
		echo "deps.sh: as root, run: apt-get install$missing" >&2
		exit 1
	}
	sudo=sudo
fi
echo "installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { $sudo apt-get update && $sudo apt-get install -y \
	--no-install-recommends $missing; } >"$log" 2>&1; then
	cat "$log" >&2
	echo "deps.sh: could not install:$missing" >&2
	exit 1
fi
