#!/bin/bash
# Linux's vsock_test, whole, in guests of our own VMM: vmm.sh ARCVMM
#
# On the software CPU here, and under KVM in the nested host; with the stock
# kernels and the test of each kernel's own source.
set -u
cd "$(dirname "$0")/../.."
arcvmm=$(realpath "$1")
passed=0 failed=0 skipped=0
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cache=${ARCVMM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/arcvmm-test}

verdict() { # NAME STATUS OUTPUT
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		echo "  $1: $(grep -c '^[0-9]* - .*ok$' <<<"$3") of Linux's tests ok," \
			"$(grep -c '^[0-9]* - .*skip' <<<"$3") skipped by it"
	else
		failed=$((failed + 1))
		printf 'FAILED %s:\n%s\n' "$1" "$3" | tail -n 40
	fi
}

for v in 6.1 6.12; do
	test=$cache/vsock_test-$v
	if ! { read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh $v) ||
		! tests/vsock/build-vsock-test.sh "$test" $v >/dev/null 2>&1; then
		echo "SKIP: vsock_test-$v: no kernel or no source package"
		skipped=$((skipped + 2))
		continue
	fi
	root=$work/$v/root
	mkdir -p "$work/$v" && tests/boot/prepare.sh "$work/$v" >/dev/null
	cp "$test" "$root/bin/vsock_test"
	install -m755 tests/vsock/judge.sh "$root/bin/judge"
	out=$("$arcvmm" run --engine soft --kernel "$kernel" \
		--modules "$modules" --root "$root" --vsock-hairpin \
		--timeout 300 -- judge 2>&1)
	verdict "vsock_test $v, soft" $? "$out"

	echo "/p/bin/arcvmm run --engine kvm --kernel /p/kernel-$v/vmlinuz \
		--modules /p/kernel-$v/modules --root /p/root --vsock-hairpin \
		--timeout 300 -- judge 2>&1" >"$work/script"
	out=$(tests/nested/try.sh --timeout 300 --bin "$arcvmm" \
		--add "$root=root" --kernel $v "$work/script" 2>&1)
	verdict "vsock_test $v, kvm nested" $? "$out"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
