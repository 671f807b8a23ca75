#!/bin/bash
# The vsock device under stock guests of the whole VMM, beside its floors in the
# guest and on the host (see bench/guest/vsock.c; bench/vsock.c is the device
# alone, its driver played natively):
#
#   vsock-guest.sh ARCVMM soft|kvm [VERSION [SECONDS [REPEATS]]]
#
# soft runs here; kvm in the nested host, where "the host" of the table is the L1
# host. SECONDS (1) is what one figure takes at most, of 24 a repeat (3).
set -eu
cd "$(dirname "$0")/.."
arcvmm=$(realpath "$1") engine=$2 version=${3:-6.1}
jobs="${4:-1} ${5:-3}"
tools/fetch-kernel.sh "$version" >/dev/null || {
	echo "SKIP: vsock-guest: no kernel $version"
	echo "0 passed, 0 failed, 1 skipped"
	exit 0
}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root"
musl-gcc -std=gnu11 -O2 -D_GNU_SOURCE -Isrc -static -o "$work/root/peer" \
	bench/guest/vsock.c
echo "Linux $version, engine $engine"
# shellcheck disable=SC2086
tests/vsock/run-engine.sh 600 "$arcvmm" "$engine" "$version" "$work/root" $jobs
