#!/bin/bash
# The root directory of the guests of run-vmm.sh: prepare.sh DIR
set -eu
cd "$(dirname "$0")/../.."
mkdir -p "$1"/{proc,dev,sys,run,tmp,modules}
musl-gcc -std=gnu11 -Os -D_GNU_SOURCE -static -o "$1/peer" tests/vsock/peer.c
