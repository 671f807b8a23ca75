#!/bin/sh
# Boot stock kernels with the command line tool and look at what comes out.
#
#     run.sh ARCVMM ENGINE ROOTS KERNEL MODULES [CPUS]
#
# ROOTS is made by prepare.sh. Runs in a POSIX shell with busybox, so that the
# same script serves natively (engine soft) and inside the nested host (kvm).
set -u
arcvmm=$1 engine=$2 roots=$3 kernel=$4 modules=$5 cpus=${6:-1}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
pass=0 fail=0
limit=${BOOT_TIMEOUT:-120}

run() {
	"$arcvmm" run --engine "$engine" --kernel "$kernel" --modules "$modules" \
		--cpus "$cpus" --timeout "$limit" "$@" </dev/null 2>"$work/err"
}

# check NAME STATUS EXPECTED_STATUS OUTPUT PATTERN
check() {
	if [ "$2" -eq "$3" ] && printf '%s\n' "$4" | grep -q -- "$5"; then
		pass=$((pass + 1))
		[ -z "${VERBOSE:-}" ] || echo "ok $1"
		return
	fi
	fail=$((fail + 1))
	echo "FAILED $1: exit $2 (want $3), wanted '$5' in:"
	printf '%s\n' "$4" | tail -n 30
	tail -n 10 "$work/err"
}

out=$(run --root "$roots/root" -- sh -c 'uname -r; id -u; echo "cpus $(nproc)"')
check root-directory $? 0 "$out" "cpus $cpus"

out=$(run --root "$roots/root" -- sh -c 'exit 42')
check exit-status $? 42 "$out" ''

out=$(run --root "$roots/root" -- sh -c 'kill -SEGV $$')
check killed-by-signal $? 139 "$out" ''

out=$(run --root "$roots/root" -- no-such-command)
check not-found $? 127 "$out" ''

out=$(run --root "$roots/root" -- /etc/passwd)
check not-executable $? 126 "$out" ''

out=$(run --root "$roots/root" --env 'GREETING=hello  world' --workdir /tmp \
	--user nobody --hostname box -- \
	sh -c 'echo "$GREETING|$(pwd)|$(id -u)|$(hostname)"')
check surroundings $? 0 "$out" 'hello  world|/tmp|65534|box'

out=$(run --root "$roots/root.tar.gz" -- sh -c 'ls -l /bin/sh; echo from tar')
check root-tar $? 0 "$out" 'from tar'

cp "$roots/root.ext4" "$work/disk"
out=$(run --root "$work/disk" -- sh -c 'grep " / " /proc/mounts; echo kept >/note')
check root-disk $? 0 "$out" '/dev/vda / ext4 rw'
out=$(run --root "$work/disk" --root-overlay -- sh -c 'cat /note; echo x >/note')
check root-overlay $? 0 "$out" kept
out=$(run --root "$work/disk" --root-readonly -- \
	sh -c 'cat /note; echo x >/note || echo refused' 2>&1)
check root-readonly $? 0 "$out" refused
out=$(run --disk "$work/disk" --root-disk label=arcroot \
	--root-fstype ext4 -- cat /note)
check root-by-label $? 0 "$out" kept

cp "$roots/data.img" "$work/data"
sum=$(md5sum <"$work/data")
out=$(run --root "$roots/root" --disk "$work/data,serial=DATA1" -- \
	sh -c 'md5sum </dev/vda; cat /sys/block/vda/serial; echo
	dd if=/dev/urandom of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null
	md5sum </dev/vda')
check disk-read $? 0 "$out" "$sum"
check disk-serial 0 0 "$out" DATA1
check disk-write 0 0 "$out" "$(md5sum <"$work/data")"

out=$(run --root "$roots/root" --disk "$work/data,readonly" -- \
	sh -c 'dd if=/dev/zero of=/dev/vda bs=4k count=1 2>&1; cat /sys/block/vda/ro')
check disk-readonly $? 0 "$out" '^1'

out=$(run --root "$roots/root" -- sh -c 'seq 1 20000 | md5sum; seq 1 20000')
rc=$?
check console-volume $rc 0 "$out" '20000'
check console-intact 0 0 "$(printf '%s\n' "$out" | tr -d '\r' | tail -n 20000 | md5sum)" \
	"$(seq 1 20000 | md5sum | cut -d' ' -f1)"

run --root "$roots/root" --console "file:$work/log" -- echo into the file
check console-file $? 0 "$(cat "$work/log")" 'into the file'

out=$(run --root "$roots/root" -- sh -c 'echo b >/proc/sysrq-trigger; sleep 60')
check reboot $? 120 "$out" ''

out=$(run --root "$roots/root" -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60')
check panic $? 121 "$out" 'sysrq triggered crash'

out=$(limit=${SHORT_TIMEOUT:-8} run --root "$roots/root" -- sleep 1000)
check timeout $? 124 "$out" ''

out=$(run --root "$roots/root" -- sh -c \
	'head -c 4096 /dev/hwrng 2>/dev/null | wc -c; cat /sys/class/misc/hw_random/rng_current')
check entropy $? 0 "$out" 'virtio_rng'

out=$(run --root "$roots/root" --uart --console stdio --boot-messages \
	--cmdline 'earlyprintk=ttyS0 console=ttyS0' -- true; cat "$work/err")
check uart $? 0 "$out" 'Linux version'

out=$(run --root "$roots/root" --boot-timeline "$work/t.json" -- true &&
	cat "$work/t.json" && grep -c '<svg' "$work/t.svg")
check timeline $? 0 "$out" '"poweroff"'

# The root's own init: busybox init runs inittab, which powers off.
mkdir -p "$work/own/etc" && cp -a "$roots/root/." "$work/own/"
printf '::sysinit:/bin/echo own init runs\n::sysinit:/bin/poweroff -f\n' \
	>"$work/own/etc/inittab"
out=$(run --root "$work/own")
check own-init $? 0 "$out" 'own init runs'

echo "$pass passed, $fail failed, 0 skipped"
[ "$fail" -eq 0 ]
