#!/bin/bash
# The root directory of the guests of run-vmm.sh: prepare.sh DIR VERSION
set -eu
cd "$(dirname "$0")/../.."
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arcvmm-test}
mkdir -p "$1"/{proc,dev,sys,run,tmp,modules}
musl-gcc -std=gnu11 -Os -D_GNU_SOURCE -static -o "$1/peer" tests/vsock/peer.c
tests/vsock/build-vsock-test.sh "$cache/vsock_test-$2" "$2" >/dev/null 2>&1
cp "$cache/vsock_test-$2" "$1/vsock_test"
