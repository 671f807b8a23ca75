#!/bin/sh
# Make the roots that the boot tests use: prepare.sh DIRECTORY
#
#   root/         a directory with busybox
#   root.tar.gz   the same, packed
#   root.ext4     the same, as a disk image, label "arcroot"
#   data.img      a disk of 8 MiB whose byte n is a function of n
set -eu
dir=$1
root=$dir/root
mkdir -p "$root/bin" "$root/etc" "$root/sbin" "$root/tmp"
[ -x "$root/bin/busybox" ] || cp "$(command -v busybox)" "$root/bin/busybox"
for tool in $("$root/bin/busybox" --list); do
	[ "$tool" = busybox ] || ln -sf busybox "$root/bin/$tool"
done
ln -sf ../bin/busybox "$root/sbin/init"
echo 'root:x:0:0:root:/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:
nogroup:x:65534:' >"$root/etc/group"
tar -C "$root" -czf "$dir/root.tar.gz" .
mke2fs -q -F -t ext4 -O ^has_journal -L arcroot -d "$root" "$dir/root.ext4" 24M
seq 1000000000 1000932067 | head -c 8388608 >"$dir/data.img"
