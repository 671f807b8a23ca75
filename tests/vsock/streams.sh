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
	tools/fetch-kernel.sh $v >/dev/null &&
		tests/vsock/prepare.sh "$roots/$v" || {
		echo "SKIP: vsock-streams $v, $engine: no kernel"
		skipped=$((skipped + 1))
		continue
	}
	echo "-- Linux $v, engine $engine"
	# shellcheck disable=SC2086
	tests/vsock/run-engine.sh 300 "$build/arcvmm" "$engine" $v \
		"$roots/$v" $jobs
	if [ $? -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
