#!/bin/bash
# Boots of stock kernels on this machine: native.sh ARCVMM ENGINE VERSION [CPUS]
set -eu
cd "$(dirname "$0")/../.."
roots=$(mktemp -d) && trap 'rm -rf "$roots"' EXIT
tests/boot/prepare.sh "$roots" >/dev/null
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$3")
tests/boot/run.sh "$(realpath "$1")" "$2" "$roots" "$kernel" "$modules" "${4:-1}"
