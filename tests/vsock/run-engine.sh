#!/bin/bash
# run-vmm.sh where the engine can run a stock kernel: soft here, kvm in the
# nested host. Exit status: that of the jobs; 124 after SECONDS.
#
#   run-engine.sh SECONDS ARCVMM soft|kvm VERSION ROOT JOB...
set -eu
cd "$(dirname "$0")/../.."
limit=$1 arcvmm=$2 engine=$3 version=$4 root=$5
shift 5
if [ "$engine" = soft ]; then
	{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
	exec timeout "$limit" tests/vsock/run-vmm.sh "$arcvmm" soft "$root" \
		"$kernel" "$modules" "$@"
fi
script=$(mktemp) && trap 'rm -f "$script"' EXIT
echo "sh /p/run-vmm.sh /p/bin/arcvmm kvm /p/root" \
	"/p/kernel-$version/vmlinuz /p/kernel-$version/modules $* 2>&1" >"$script"
tests/nested/try.sh --timeout "$limit" --bin "$arcvmm" \
	--add tests/vsock/run-vmm.sh --add "$root=root" --kernel "$version" \
	"$script"
