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

limits='ulimit -Sn; ulimit -Hn; ulimit -v; ulimit -c'
out=$(run --root "$roots/root" --limit nofile=1 --limit nofile=64:128 \
	--limit as=512M --limit core=unlimited -- sh -c "$limits" | paste -sd' ')
check limits $? 0 "$out" '^64 128 524288 unlimited$'
# The same on the console, where init runs the command.
out=$(run --root "$roots/root" --limit nofile=64:128 --limit as=512M \
	--console stdio -- sh -c "$limits" | tr -d '\r' | paste -sd' ')
check limits-console $? 0 "$out" '64 128 524288'
run --root "$roots/root" --limit nofile=999999999999 -- true
check limit-refused $? 125 "$(cat "$work/err")" 'limit nofile'

out=$(run --root "$roots/root" --user nosuch -- true)
check no-such-user $? 125 "$(cat "$work/err")" 'no such user'
out=$(run --root "$roots/root" --mount 'tmpfs none /a%20b size=1m' -- \
	sh -c 'df "/a b" | tail -n 1')
check mount $? 0 "$out" ' 1024 .*/a b'
out=$(run --root "$roots/root" --mount 'nofs none /mnt' -- true)
check mount-fails $? 125 "$(cat "$work/err")" 'mount none on /mnt: No such device'

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

out=$(run --root "$roots/root" -- sh -c 'kill -TERM 1; sleep 60')
check reboot-in-order $? 120 "$out" ''
out=$(run --root "$roots/root" -- sh -c \
	'trap "echo told to end; exit 9" TERM; kill -USR2 1; sleep 60 & wait')
check power-off-in-order $? 9 "$out" 'told to end'

out=$(run --root "$roots/root" --console stdio -- \
	sh -c 'echo c >/proc/sysrq-trigger; sleep 60')
check panic $? 121 "$out" 'sysrq triggered crash'

out=$(run --root "$roots/root" -- sh -c 'echo c >/proc/sysrq-trigger; sleep 60')
check panic-by-agent $? 121 "$(cat "$work/err")" 'the guest kernel panicked'

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

# ---- a VM with a name: exec, cp, logs, stats, stop ----
export XDG_RUNTIME_DIR="$work"
vm() { "$arcvmm" "$@" 2>"$work/err"; }
out=$(run -d --name box --root "$roots/root" --serve)
check detached $? 0 "$out" '^box$'
out=$(vm exec --env A=1 --workdir /etc box -- sh -c 'echo $A $(pwd); exit 5')
check exec $? 5 "$out" '1 /etc'
out=$(vm exec --limit cpu=7:9 --limit=nproc=50 box -- sh -c \
	'ulimit -St; ulimit -Ht; ulimit -u 2>/dev/null || ulimit -p' | paste -sd' ')
check exec-limits $? 0 "$out" '^7 9 50$'
out=$(seq 1 50000 | vm exec -i box -- md5sum)
check exec-input $? 0 "$out" "$(seq 1 50000 | md5sum)"
out=$(vm exec box -- sh -c 'seq 1 200000' | md5sum)
check exec-output 0 0 "$out" "$(seq 1 200000 | md5sum)"
out=$(vm exec box -- sh -c 'echo to stderr >&2; echo to stdout'; cat "$work/err")
check exec-two-streams $? 0 "$out" 'to stderr'
vm exec box -- no-such-command
check exec-not-found $? 127 "$(cat "$work/err")" 'no-such-command'
out=$(vm exec -i box -- sh -c 'cat; echo end' <&-)
check exec-no-stdin $? 0 "$out" '^end$'
vm exec box -- echo unheard >&-
check exec-no-stdout $? 0 '' ''
vm exec --timeout 1 box -- sleep 100
check exec-timeout $? 124 '' ''
out=$(vm exec -t box -- sh -c 'tty; stty size')
check exec-tty $? 0 "$out" '/dev/pts'
mkdir -p "$work/tree/sub dir" && seq 1 100000 >"$work/tree/sub dir/a
b" && ln -s nowhere "$work/tree/link" && chmod 751 "$work/tree/sub dir"
vm cp "$work/tree" box:/tmp/ && vm cp box:/tmp/tree "$work/back"
check cp $? 0 "$(cd "$work/back" && stat -c '%a %F' 'sub dir' && readlink link)" '751'
check cp-intact 0 0 "$(md5sum <"$work/back/sub dir/a
b")" "$(md5sum <"$work/tree/sub dir/a
b")"
vm cp box:/no/such/file "$work/none"
check cp-missing $? 125 "$(cat "$work/err")" 'No such file'
out=$(vm ps)
check ps $? 0 "$out" box
out=$(vm ps --json)
check ps-json $? 0 "$out" '"name": "box"'
out=$(vm stats box)
check stats $? 0 "$out" mem_available
vm logs box >/dev/null
check logs $? 0 '' ''
run -d --name box --root "$roots/root" --serve >/dev/null
check name-taken $? 125 "$(cat "$work/err")" 'running already'
vm stop box
out=$(run -d --name box --root "$roots/root" --serve --vsock-uds "$work/own.sock")
vm exec box -- true && [ -S "$work/own.sock" ]
check own-socket $? 0 "$out" box
vm pause box && vm resume box && out=$(vm exec box -- echo again)
check pause-resume $? 0 "$out" again
# A guest whose clock is wrong after a pause, for whatever reason.
vm exec box -- sh -c 'date -s @1000000000 >/dev/null' && vm pause box && vm resume box
for i in 1 2 3 4 5 6 7 8 9 10; do
	off=$(($(vm exec box -- date +%s) - $(date +%s)))
	[ $off -lt -1 ] || [ $off -gt 1 ] || break
	sleep 0.3
done
check resume-sets-clock 0 0 "off by $off" '^off by -\{0,1\}[01]$'
{ vm exec box -- sh -c 'trap "" TERM; echo up; while :; do sleep 1; done'
	echo "exit $?"; } >"$work/ended" &
while [ ! -s "$work/ended" ]; do sleep 0.1; done
vm stop box
check stop $? 0 '' ''
wait $!
check stop-ends-exec 0 0 "$(paste -sd' ' "$work/ended"; cat "$work/err")" \
	'^up exit 137$'
vm exec box -- true
check unknown-vm $? 125 "$(cat "$work/err")" 'no VM named'
# A paused guest cannot power off: it is ended when its time is over.
run -d --name still --root "$roots/root" --serve >/dev/null
vm exec still -- true && vm pause still && vm stop -t 0.5 still
check stop-timeout $? 0 "$(vm ps)" '^NAME\|^$'
vm exec still -- true
check stop-ended $? 125 "$(cat "$work/err")" 'no VM named'
# One whose agent cannot be reached: nothing waits for it for ever.
run -d --name mute --root "$roots/root" --serve \
	--cmdline module_blacklist=vmw_vsock_virtio_transport >/dev/null
vm stats mute | grep -q '^engine'
check stats-without-agent $? 0 "$(cat "$work/err")" "mute: the guest.s agent is not up\|port 1023"
"$arcvmm" exec mute -- true 2>"$work/err" &
sleep 1
kill -TERM $!
wait $!
check exec-without-agent $? 143 "$(cat "$work/err")" '^$'
vm kill mute
run -d --name dead --root "$roots/root" --serve >/dev/null
kill -9 "$(vm ps | sed -n 's/^dead *\([0-9]*\).*/\1/p')"
sleep 1
vm ps >/dev/null
check died $? 0 "$(cat "$work/err")" 'died'

echo "$pass passed, $fail failed, 0 skipped"
[ "$fail" -eq 0 ]
