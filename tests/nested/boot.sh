#!/bin/bash
# Boot stock Debian kernels under the KVM engine, in the L1 host.
#
#   boot.sh [-n N] [-k KERNELS] [-c CPUS] [-q] [ARCVMM]
#     -n N     boots of each combination (2)
#     -k       kernels ("6.1 6.12")     -c  vCPUs ("1 2")
#     -q       the same under QEMU's microvm machine, in alternation
#
# Combinations: kernel x vCPUs x root (in the initramfs, on an ext4 disk). A
# boot is good when the command, run in the guest from that root, prints its
# line with the number of CPUs and arcvmm exits with the command's status (7).
# Prints a line for each boot that failed and a table with medians: wall time
# from process start to the command's line and to the end of the process, guest
# uptime at the command. (QEMU is killed at the line: in this L1 its microvm
# guest takes half a minute to end.)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
n=2 kernels="6.1 6.12" cpus="1 2" qemu=
while getopts n:k:c:q opt; do
	case $opt in
	n) n=$OPTARG ;;
	k) kernels=$OPTARG ;;
	c) cpus=$OPTARG ;;
	q) qemu=1 ;;
	*) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
arcvmm=${1:-$top/build/gcc/arcvmm}
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

. "$here/roots.sh"
make_root
truncate -s 24M "$work/root.ext4"
mke2fs -q -t ext4 -d "$root" "$work/root.ext4"

args=(--bin "$arcvmm" --add "$root=root" --add "$work/root.ext4=root.ext4")
for k in $kernels; do args+=(--kernel "$k"); done

if [ -n "$qemu" ]; then
	qemu_files $kernels
	args+=(--bin "$(command -v qemu-system-x86_64)" --add "$work/fw=fw")
	for k in $kernels; do
		args+=(--add "$work/initrd-$k.cpio=qemu-$k.cpio")
	done
fi

cat >"$work/script" <<IN
n=$n kernels="$kernels" cpus="$cpus" qemu=$qemu
IN
cat >>"$work/script" <<'IN'
now() { read -r up _ </proc/uptime; echo "$up"; }
arcvmm_boot() { # kernel cpus root
	case $3 in
	ram) set -- "$@" --root /p/root ;;
	disk) cp /p/root.ext4 /tmp/root.ext4; set -- "$@" --root /tmp/root.ext4 ;;
	esac
	k=$1 c=$2
	shift 3
	exec timeout 100 arcvmm run --engine kvm \
		--kernel /p/kernel-$k/vmlinuz \
		--modules /p/kernel-$k/modules/* --mem 256M --cpus $c "$@" \
		-- hello 2>&1
}
qemu_boot() {
	disk=
	if [ $3 = disk ]; then
		cp /p/root.ext4 /tmp/root.ext4
		disk="-drive if=none,id=d,format=raw,file=/tmp/root.ext4
			-device virtio-blk-device,drive=d"
		set -- "$@" fromdisk
	fi
	exec timeout 100 qemu-system-x86_64 -L /p/fw -accel kvm \
		-M microvm,acpi=on,rtc=on -cpu host \
		-m 256 -smp $2 -nodefaults -no-user-config -no-reboot \
		-display none -serial stdio -kernel /p/kernel-$1/vmlinuz \
		-initrd /p/qemu-$1.cpio -append "console=ttyS0 quiet \
		cryptomgr.notests reboot=t panic=-1 ${4:-}" $disk 2>&1
}
one() { # vmm kernel cpus root
	rm -f /tmp/pipe /tmp/out && mkfifo /tmp/pipe
	begun=$(now)
	($1_boot $2 $3 $4) </dev/null >/tmp/pipe &
	pid=$! line= at=
	while IFS= read -r l; do
		echo "$l" >>/tmp/out
		case $l in
		"hello cpus=$3 "*" root=$4"*)
			line=${l%%?root*}
			at=$(now)
			[ $1 = arcvmm ] || kill $pid
			;;
		esac
	done </tmp/pipe
	wait $pid
	rc=$?
	[ $1 = arcvmm ] || rc=7
	if [ $rc -eq 7 ] && [ -n "$line" ]; then
		echo "BOOT $1 $2 $3 $4 ok $begun $at $(now) ${line#*uptime=}"
	else
		echo "BOOT $1 $2 $3 $4 FAIL status $rc"
		head -c 4000 /tmp/out | sed 's/^/    /'
	fi
}
i=0
while [ $i -lt $n ]; do
	for k in $kernels; do for c in $cpus; do for r in ram disk; do
		one arcvmm $k $c $r
		[ -z "$qemu" ] || one qemu $k $c $r
	done; done; done
	i=$((i + 1))
done
IN
"$here/l1.sh" "${args[@]}" --timeout $((120 + n * 300)) "$work/script" |
	tee "$work/log" | grep --line-buffered -v '^BOOT.* ok ' || true

LC_ALL=C awk '
$1 == "BOOT" {
	k = $2 " " $3 " " $4 " " $5
	if (!(k in all)) order[++keys] = k
	all[k]++
	if ($6 == "ok") {
		good[k]++
		cmd[k, good[k]] = $8 - $7
		wall[k, good[k]] = $9 - $7
		up[k, good[k]] = $10
	} else
		bad++
	total++
}
function median(a, k, n,    i, j, t, v) {
	if (!n) return "-"
	for (i = 1; i <= n; i++) v[i] = a[k, i]
	for (i = 2; i <= n; i++)
		for (j = i; j > 1 && v[j - 1] > v[j]; j--) {
			t = v[j]; v[j] = v[j - 1]; v[j - 1] = t
		}
	return sprintf("%.2f (%.2f-%.2f)", v[int((n + 1) / 2)], v[1], v[n])
}
END {
	row = "%-8s%-7s%-6s%-6s%-8s%-18s%-18s%s\n"
	printf row, "vmm", "kernel", "vcpus", "root", "boots",
		"to command s", "to end s", "guest uptime s"
	for (i = 1; i <= keys; i++) {
		k = order[i]
		split(k, f, " ")
		printf row, f[1], f[2], f[3], f[4], good[k] + 0 "/" all[k],
			median(cmd, k, good[k]),
			f[1] == "arcvmm" ? median(wall, k, good[k]) : "-",
			median(up, k, good[k])
	}
	exit !total || bad
}' "$work/log"
