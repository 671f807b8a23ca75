#!/bin/bash
# Hashed streams, connects and round trips in guests of arcvmm:
#   streams.sh BUILD soft     here, on the software CPU
#   streams.sh BUILD kvm      in the nested host
set -u
cd "$(dirname "$0")/../.."
build=$1 engine=$2
passed=0 failed=0 skipped=0
jobs="up send 8M recv 8M dial 1M echo 100 rtt 200 off"
roots=$(mktemp -d) && trap 'rm -rf "$roots"' EXIT

for v in ${VSOCK_KERNELS:-6.1 6.12}; do
	{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh $v) &&
		tests/vsock/prepare.sh "$roots/$v" || {
		echo "SKIP: vsock-streams $v, $engine: no kernel"
		skipped=$((skipped + 1))
		continue
	}
	echo "-- Linux $v, engine $engine"
	if [ "$engine" = soft ]; then
		# shellcheck disable=SC2086
		timeout 300 tests/vsock/run-vmm.sh "$build/arcvmm" soft \
			"$roots/$v" "$kernel" "$modules" $jobs
	else
		echo "sh /p/run-vmm.sh /p/bin/arcvmm kvm /p/root" \
			"/p/kernel-$v/vmlinuz /p/kernel-$v/modules $jobs 2>&1" \
			>"$roots/script"
		tests/nested/l1.sh --timeout 600 --bin "$build/arcvmm" \
			--add tests/vsock/run-vmm.sh --add "$roots/$v=root" \
			--kernel $v "$roots/script"
	fi
	if [ $? -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
