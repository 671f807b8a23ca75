#!/bin/bash
# The same boots under KVM, in the nested host: nested.sh ARCVMM VERSION [CPUS]
set -eu -o pipefail
cd "$(dirname "$0")/../.."
roots=$(mktemp -d) && trap 'rm -rf "$roots"' EXIT
tests/boot/prepare.sh "$roots/roots" >/dev/null
cat >"$roots/script" <<EOF
sh /p/run.sh /p/bin/arcvmm kvm /p/roots /p/kernel-$2/vmlinuz \
	/p/kernel-$2/modules ${3:-1} 2>&1
EOF
tests/nested/try.sh --timeout 900 --bin "$1" --add tests/boot/run.sh \
	--add "$roots/roots=roots" --kernel "$2" "$roots/script" |
	grep -v 'Unhandled WRMSR'
