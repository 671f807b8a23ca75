#!/bin/bash
# The vsock device judged by stock guests under QEMU: streams both ways with
# hashes, connects in flight, and Linux's own vsock_test (client and server in
# one guest, through the hairpin), each with the sources of its kernel.
set -u
cd "$(dirname "$0")/../.."
build=$1
passed=0 failed=0 skipped=0

finish() {
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
	exit
}
skip() {
	echo "SKIP: vsock-qemu: $1"
	skipped=$((skipped + 1))
}
for need in qemu-system-x86_64 cpio musl-gcc; do
	command -v $need >/dev/null || { skip "no $need"; finish; }
done
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arcvmm-test}
for v in 6.1 6.12; do
	vmlinuz=$(tools/fetch-kernel.sh $v | head -n 1) && [ -n "$vmlinuz" ] ||
		{ skip "no kernel $v"; continue; }
	kernel=$(dirname "$(dirname "$vmlinuz")")
	echo "-- Linux $v: streams"
	if tests/vsock/run-qemu.sh -k "$kernel" -b "$build" up \
		send "${VSOCK_QEMU_BYTES:-64M}" recv "${VSOCK_QEMU_BYTES:-64M}" \
		dial 16M echo 200 rtt 200 off; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	test=$cache/vsock_test-$v
	if ! tests/vsock/build-vsock-test.sh "$test" $v >/dev/null 2>&1; then
		skip "vsock_test $v cannot be built"
		continue
	fi
	echo "-- Linux $v: vsock_test"
	if tests/vsock/run-qemu.sh -k "$kernel" -b "$build" -a --hairpin \
		-F "$test:vsock_test" up vsock_test off; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
finish
