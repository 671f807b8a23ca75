#!/bin/bash
# Debian 12 with systemd, from a disk image: boots to a login prompt, somebody
# logs in, and a request from outside powers it off in order.
#
#     systemd.sh ARCVMM VERSION [CPUS]
#
# Twice on the software CPU: powered off by `arcvmm stop`, and by SIGTERM. The
# image (debian-root.sh) is made once; each boot has its own copy, which must
# be clean afterwards.
set -eu
cd "$(dirname "$0")/../.."
arcvmm=$(realpath "$1") version=$2 cpus=${3:-2}
limit=${BOOT_TIMEOUT:-180}
{ read -r kernel && read -r modules; } < <(tools/fetch-kernel.sh "$version")
# shellcheck source=debian-packages
. tests/boot/debian-packages
debian=$(tests/boot/debian-root.sh $debian_packages)
work=$(mktemp -d)
export XDG_RUNTIME_DIR=$work
pid=
cleanup() {
	[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
mkfifo "$work/in"
passed=0 failed=0

ms() { echo $(($(date +%s%N) / 1000000)); }
log() { tr -d '\r' <"$work/log" | sed 's/\x1b\[[0-9;?]*[a-zA-Z]//g'; }

# wait_for PATTERN: on the console, while the guest runs
wait_for() {
	until log | grep -q -- "$1"; do
		kill -0 "$pid" 2>/dev/null || return 1
		[ $(($(ms) - start)) -lt $((limit * 1000)) ] || return 1
		sleep 0.1
	done
}

# verdict NAME STATUS WHAT
verdict() {
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		echo "  ok $1: $3"
	else
		failed=$((failed + 1))
		echo "  FAILED $1: $3"
		log | tail -n 40
	fi
}

# session HOW-IT-IS-ASKED-TO-END
session() {
	local good=0 status what asked took
	cp --sparse=always "$debian/image" "$work/disk"
	: >"$work/log"
	start=$(ms)
	"$arcvmm" run --engine soft --name debian --kernel "$kernel" \
		--modules "$modules" --module autofs4 \
		--module binfmt_misc --cpus "$cpus" \
		--mem 512M --root "$work/disk" \
		--cmdline systemd.show_status=1 --timeout "$limit" -v <"$work/in" >"$work/log" 2>"$work/err" &
	pid=$!
	exec 7>"$work/in"
	wait_for 'debian login:' || good=1
	verdict "login prompt" $good "after $(($(ms) - start)) ms"
	if [ $good -eq 0 ]; then
		echo root >&7
		wait_for 'root@debian:.*#' || good=1
		# Not the echo of what is typed: what it becomes.
		echo 'echo "PID1=$(cat /proc/1/comm) $(uname -r) $(systemctl is-system-running --wait) failed=$(systemctl --failed --no-legend | wc -l)."' >&7
		wait_for '^PID1=' || good=1
		what=$(log | sed -n 's/^PID1=//p' | head -n 1)
		[[ "$what" = systemd*running*failed=0. ]] || good=1
		verdict "logged in" $good "$what after $(($(ms) - start)) ms"
	fi
	asked=$(ms)
	case $1 in
	stop) "$arcvmm" stop -t 60 debian >/dev/null 2>&1 || true ;;
	TERM) kill -TERM "$pid" ;;
	esac
	status=0 good=0
	wait "$pid" || status=$?
	took=$(($(ms) - asked))
	pid=
	exec 7>&-
	what="status $status"
	# 0: the guest powered off; 128 + 15: so it did, asked by a signal.
	[ "$status" -eq $([ "$1" = stop ] && echo 0 || echo 143) ] || good=1
	log | grep -q 'Reached target.*[Pp]ower.*[Oo]ff' ||
		{ good=1 what="$what, systemd did not reach its target"; }
	! dumpe2fs -h "$work/disk" 2>/dev/null | grep -q needs_recovery ||
		{ good=1 what="$what, the disk was not unmounted"; }
	[ $good -eq 0 ] || cat "$work/err"
	verdict "powered off ($1)" $good "$what; $took ms after being asked"
}

echo "Debian 12, systemd, Linux $version, $cpus CPUs, engine soft:"
[ -n "${ONLY_TERM:-}" ] || session stop
session TERM
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
