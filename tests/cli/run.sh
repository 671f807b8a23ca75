#!/bin/bash
# The command line with bad input: each case names the exit status and words
# that the message must have. Nothing here boots a guest.
#
#     tests/cli/run.sh build/gcc/arcvmm
set -u
cd "$(dirname "$0")/../.."
arcvmm=$(realpath "${1:-build/gcc/arcvmm}")
pass=0 fail=0 skip=0
dir=$(mktemp -d) && trap 'rm -rf "$dir"' EXIT

# says NAME STATUS WORDS -- COMMAND...: the command fails that way and leaves no
# file behind in $dir/empty.
says() {
	local name=$1 status=$2 words=$3 out rc
	shift 4
	out=$(timeout 60 "$@" 2>&1 </dev/null)
	rc=$?
	if [ "$rc" -eq "$status" ] && grep -qiE -- "$words" <<<"$out"; then
		pass=$((pass + 1))
	else
		fail=$((fail + 1))
		printf 'FAILED %s: exit %d (want %d), said:\n%s\n' "$name" \
			"$rc" "$status" "$out" | head -n 20
	fi
	[ -z "${SHOW:-}" ] || printf '%-34s %3d  %s\n' "$name" "$rc" \
		"$(head -n 1 <<<"$out")"
}

# Root, but file permissions count.
meek="setpriv --bounding-set=-dac_override,-dac_read_search"

skips() {
	echo "SKIP: $1: $2"
	skip=$((skip + 1))
}

# Bytes of an ELF header: class, type, machine.
elf() {
	printf "\177ELF\\x0$1\1\1\0\0\0\0\0\0\0\0\0\\x0$2\0\\x$3\\x$4\1\0\0\0"
	head -c 4096 /dev/zero
}

# ---- verbs and options ----
says no-verb 125 'usage: arcvmm VERB' -- "$arcvmm"
says unknown-verb 125 "did you mean 'run'" -- "$arcvmm" rnu
says help-unknown 125 "no verb 'xyzzy'" -- "$arcvmm" help xyzzy
says help 0 'boot a kernel' -- "$arcvmm" help
says help-run 0 'cryptomgr.notests' -- "$arcvmm" help run
says version 0 '^arcvmm [0-9]+\.[0-9]+' -- "$arcvmm" version
says unknown-option 125 "did you mean 'kernel'" -- "$arcvmm" run --kernle x
says unknown-short 125 "unknown option '-z'" -- "$arcvmm" run -z
says missing-value 125 'kernel needs a value' -- "$arcvmm" run --kernel
says unknown-engine 125 'did you mean kvm' -- "$arcvmm" run --engine kmv
says bad-console 125 'did you mean stdio' -- "$arcvmm" run --console stdoi
says bad-switch 125 'neither on nor off' -- "$arcvmm" run --vsock=maybe
says bad-rng 125 'not a size' -- "$arcvmm" run --rng rate=x
says bad-rng-key 125 'did you mean rate' -- "$arcvmm" run --rng rte=1K
says bad-cid 125 'not within 3 to' -- "$arcvmm" run --cid 2
says bad-env 125 'not NAME=VALUE' -- "$arcvmm" run --env FOO
says bad-limit-name 125 "did you mean 'nofile'" -- "$arcvmm" run --limit nofiel=9
says bad-limit-value 125 "limit as: 'x' is not a size" -- "$arcvmm" run --limit as=x
says bad-limit-order 125 'soft limit is above' -- "$arcvmm" run --limit core=2K:1K
says bad-limit-range 125 'is not within' -- "$arcvmm" run --limit cpu=9999999999999999999
says bad-limit-word 125 'is not NAME=SOFT' -- "$arcvmm" run --limit nofile
says exec-limit-name 125 "did you mean 'nproc'" -- "$arcvmm" exec --limit=nprok=1 x -- true
says exec-missing-value 125 '^arcvmm: --limit needs a value$' -- "$arcvmm" exec --limit
says help-exec 0 'limit NAME=SOFT' -- "$arcvmm" help exec
says help-limits 0 'rttime +microseconds' -- "$arcvmm" help run
says bad-mount 125 'not TYPE SOURCE TARGET' -- "$arcvmm" run \
	--mount 'tmpfs none'
says bad-timeout 125 'not a number of seconds' -- "$arcvmm" run --timeout x
says stop-timeout 125 'not a number of seconds' -- "$arcvmm" stop -t x vm
says stop-no-value 125 'needs a value' -- "$arcvmm" stop --timeout
says stop-whom 125 'which VM' -- "$arcvmm" stop -t 5
says no-kernel 125 'no kernel' -- "$arcvmm" run
says empty-command 125 'command is empty' -- "$arcvmm" run --kernel x -- ''

# ---- machine ----
for v in 0 1K; do
	says "mem-$v" 125 'mem: .* is not within' -- "$arcvmm" run --mem $v
done
says mem-word 125 "'lots' is not a size" -- "$arcvmm" run --mem lots
says cpus-0 125 'not within 1 to' -- "$arcvmm" run --cpus 0
says cpus-10000 125 'not within 1 to' -- "$arcvmm" run --cpus 10000
says cpus-word 125 'not a number' -- "$arcvmm" run --cpus two

# ---- kernels ----
run() { echo "$arcvmm" run --engine soft --kernel; }
says kernel-missing 125 'No such file' -- $(run) "$dir/none"
says kernel-directory 125 'directory' -- $(run) "$dir"
: >"$dir/empty"
says kernel-empty 125 'empty' -- $(run) "$dir/empty"
echo '#!/bin/sh' >"$dir/script"
says kernel-script 125 'script, not .*kernel' -- $(run) "$dir/script"
elf 1 2 03 00 >"$dir/elf32"
says kernel-32-bit 125 '32-bit' -- $(run) "$dir/elf32"
elf 2 2 b7 00 >"$dir/elf-arm64"
says kernel-aarch64 125 'aarch64|arm64' -- $(run) "$dir/elf-arm64"
if [ "$(id -u)" -eq 0 ]; then
	echo x >"$dir/secret"
	chmod 000 "$dir/secret"
	says kernel-unreadable 125 'Permission denied' -- \
		$meek $(run) "$dir/secret"
else
	skips kernel-unreadable 'needs root to drop privileges'
fi

if paths=$(tools/fetch-kernel.sh 6.1 2>/dev/null); then
	kernel=$(head -n 1 <<<"$paths")
	modules=$(tail -n 1 <<<"$paths")
	run() { echo "$arcvmm" run --engine soft --kernel "$kernel"; }
	head -c 100000 "$kernel" >"$dir/cut"
	says kernel-truncated 125 'truncated|ends|cut' -- \
		"$arcvmm" run --engine soft --kernel "$dir/cut"
	says mem-host 125 'than this host has|more than' -- $(run) --mem 64T
	says cmdline-long 125 'command line.*(long|most)' -- $(run) \
		--cmdline "$(printf 'x%.0s' {1..3000})"
	says mem-too-small 125 'fit|small' -- $(run) --mem 20M

	# modules
	says modules-missing 125 'No such file|modules' -- $(run) \
		--modules "$dir/none"
	mkdir -p "$dir/modules/5.0.0-other"
	says modules-other 125 'another kernel|6\.1' -- $(run) \
		--modules "$dir/modules/5.0.0-other"
	cp "$kernel" "$dir/vmlinuz-alone"
	if [ ! -d "/lib/modules/${modules##*/}" ]; then
		says modules-nowhere 125 '--modules' -- \
			"$arcvmm" run --engine soft --kernel "$dir/vmlinuz-alone"
	else
		skips modules-nowhere 'this host has the modules installed'
	fi

	# initrd and root
	says initrd-missing 125 'No such file' -- $(run) --initrd "$dir/none"
	says root-missing 125 'No such file' -- $(run) --root "$dir/none"
	says root-empty 125 'empty' -- $(run) --root "$dir/empty"
	truncate -s 400M "$dir/big.cpio"
	says initrd-no-room 125 'fit' -- $(run) --initrd "$dir/big.cpio"

	# disks
	truncate -s 1M "$dir/disk"
	truncate -s 1000 "$dir/odd"
	says disk-missing 125 'No such file' -- $(run) --disk "$dir/none"
	says disk-directory 125 'directory' -- $(run) --disk "$dir"
	says disk-empty 125 'empty' -- $(run) --disk "$dir/empty"
	says disk-odd 125 '512|sector' -- $(run) --disk "$dir/odd"
	says disk-twice 125 'twice|already|in use' -- $(run) \
		--disk "$dir/disk" --disk "$dir/disk"
	says disk-option 125 'did you mean readonly' -- $(run) \
		--disk "$dir/disk,raedonly"
	chmod 444 "$dir/disk"
	if [ "$(id -u)" -eq 0 ]; then
		says disk-readonly 125 'readonly|Permission' -- \
			$meek $(run) --disk "$dir/disk"
	else
		says disk-readonly 125 'readonly|Permission' -- $(run) \
			--disk "$dir/disk"
	fi
	says timeline-unwritable 125 'boot timeline|No such' -- $(run) \
		--boot-timeline "$dir/no/such/dir/t.json"
	says console-file 125 'console' -- $(run) --console file:"$dir"/no/dir/f
else
	skips kernel-cases 'no stock kernel could be fetched'
fi

# ---- the VMs that run ----
# Names come and go while others look: nobody is told of a death, and nobody's
# directory is taken away as a dead one's.
mkdir -m 700 "$dir/run"
export XDG_RUNTIME_DIR="$dir/run"
for _ in 1 2 3; do
	while [ ! -e "$dir/enough" ]; do
		"$arcvmm" ps
	done >>"$dir/ps" 2>&1 &
done
for _ in {1..200}; do
	"$arcvmm" run --name x --engine soft --kernel "$dir/empty"
done >"$dir/runs" 2>&1
touch "$dir/enough"
wait
if [ "$(grep -c 'is empty' "$dir/runs")" -eq 200 ] &&
	! grep -q died "$dir/ps"; then
	pass=$((pass + 1))
else
	fail=$((fail + 1))
	echo "FAILED names-come-and-go:"
	grep died "$dir/ps" | head -n 3
	grep -v 'is empty' "$dir/runs" | head -n 3
fi
# One that was killed is said to have died, once.
mkdir -m 700 "$dir/run/arcvmm/dead"
touch "$dir/run/arcvmm/dead/lock"
says died 125 "process of VM 'dead' died" -- "$arcvmm" exec dead -- true
says gone 125 "no VM named 'dead'" -- "$arcvmm" exec dead -- true

# ---- /dev/kvm ----
if unshare -m true 2>/dev/null; then
	k=${kernel:-$dir/elf32}
	if [ -e /dev/kvm ]; then
		says kvm-absent 125 '/dev/kvm' -- unshare -m sh -c \
			"mount -t tmpfs none /dev && exec $arcvmm run --engine kvm --kernel $k"
		says kvm-forbidden 125 '/dev/kvm.*(permission|group)' -- \
			unshare -m sh -c "touch $dir/k && chmod 000 $dir/k &&
			mount --bind $dir/k /dev/kvm && exec $meek $arcvmm run --engine kvm --kernel $k"
	else
		says kvm-absent 125 '/dev/kvm' -- "$arcvmm" run --engine kvm \
			--kernel "$k"
		skips kvm-forbidden 'there is no /dev/kvm to forbid'
	fi
else
	skips kvm-absent 'no mount namespaces here'
	skips kvm-forbidden 'no mount namespaces here'
fi

# ---- doctor ----
out=$("$arcvmm" doctor 2>&1)
if [ $? -le 1 ] && grep -q kvm <<<"$out"; then
	pass=$((pass + 1))
else
	fail=$((fail + 1))
	echo "FAILED doctor: $out"
fi

echo "$pass passed, $fail failed, $skip skipped"
[ "$fail" -eq 0 ]
