#!/bin/bash
# Debian's own programs judge a guest's CPU: debian.sh ARCVMM VERSION [CPUS]
#
# stress-ng verifies itself (CPU, memory, atomics, futexes; STRESS_SECONDS each,
# 10); Python and OpenSSL check themselves (tests/guest/debian-checks.sh), and
# what they compute must be what the same programs compute here.
set -eu
cd "$(dirname "$0")/../.."
arcvmm=$(realpath "$1") version=$2 cpus=${3:-2} seconds=${STRESS_SECONDS:-10}
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
. tests/boot/debian-packages
debian=$(tests/boot/debian-root.sh $debian_packages)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
passed=0 failed=0

guest() {
	"$arcvmm" run --engine soft --cpus "$cpus" --mem 768M --kernel "$kernel" \
		--modules "$modules" --root "$debian/image" --root-overlay \
		--timeout "${GUEST_TIMEOUT:-900}" "$@" 2>"$work/err"
}
# verdict NAME STATUS
verdict() {
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		echo "  ok $1: $((SECONDS - start)) s"
	else
		failed=$((failed + 1))
		echo "  FAILED $1: $((SECONDS - start)) s"
		tail -n 30 "$work/out" "$work/err"
	fi
}

echo "Debian 12's programs, Linux $version, $cpus CPUs, engine soft:"
stress() {
	local rc=0
	start=$SECONDS
	guest -- stress-ng --verify --timeout "$seconds" --metrics-brief \
		"${@:2}" >"$work/out" || rc=1
	grep -q 'successful run completed' "$work/out" "$work/err" || rc=1
	verdict "stress-ng $1" $rc
}
stress cpu --cpu "$cpus" --cpu-method all
stress memory --vm "$cpus" --vm-bytes 64M --memcpy 1 --memthrash 1
stress atomic --atomic "$cpus"
stress futex --futex "$cpus" --mutex "$cpus"
start=$SECONDS
# The guest has no FMA, with which the C library rounds some functions otherwise.
GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable \
	chroot "$debian/root" sh -s <tests/guest/debian-checks.sh >"$work/here"
echo "  (here: $((SECONDS - start)) s)"
start=$SECONDS rc=0
guest -i -- sh -s <tests/guest/debian-checks.sh >"$work/out" || rc=1
grep -q '^all well' "$work/out" || rc=1
verdict "Python and OpenSSL check themselves" $rc
rc=0
n=$(grep -c ^value "$work/here")
diff <(grep ^value "$work/here") <(grep ^value "$work/out") || rc=1
verdict "their $n values are those of this machine" $rc
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
