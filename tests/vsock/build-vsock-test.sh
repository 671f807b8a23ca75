#!/bin/bash
# Build Linux's own vsock_test, statically, from Debian's linux-source package.
#
#   build-vsock-test.sh OUT [6.1|6.12]     (does nothing when OUT exists)
#
# The test belongs to its kernel: errno values it expects have changed since.
set -eu
version=${2:-6.1}
out=$(realpath -m "${1:?usage: build-vsock-test.sh OUT}")
[ -x "$out" ] && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$(dirname "$out")"
cd "$work"
if [ -n "${LINUX_SOURCE_DEB:-}" ]; then
	cp "$LINUX_SOURCE_DEB" .
else
	apt-get download "linux-source-$version" >/dev/null
fi
dpkg --fsys-tarfile linux-source-*.deb |
	tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
	tar -xJ --wildcards 'linux-source-*/tools/testing/vsock/*' \
		'linux-source-*/tools/include/*'
cd linux-source-*/tools/testing/vsock
${CC:-gcc} -O1 -g -D_GNU_SOURCE -static -w -I../../include \
	-o "$out" vsock_test.c timeout.c control.c util.c \
	$(ls msg_zerocopy_common.c vsock_test_zerocopy.c 2>/dev/null)
"$out" --help 2>&1 | head -1 >/dev/null
echo "built $out"
