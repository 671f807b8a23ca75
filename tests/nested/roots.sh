# Sourced by the scripts beside it: the guest's root, initramfs, QEMU's files.
# Sets $root; qemu_files NAME... makes $work/fw and $work/initrd-V.cpio.

# A root with busybox and one command, which prints its line and exits with 7.
make_root() {
	root=$work/root
	mkdir -p "$root"/{bin,proc,sys,dev,tmp,etc,run}
	cp "$(command -v busybox)" "$root/bin/"
	for f in sh cat grep mount; do ln -s busybox "$root/bin/$f"; done
	cat >"$root/bin/hello" <<'IN'
#!/bin/sh
read -r up _ </proc/uptime
echo "hello cpus=$(grep -c ^processor /proc/cpuinfo) uptime=$up" \
	"root=$(grep -q ' / ext4' /proc/mounts && echo disk || echo ram)"
exit 7
IN
	chmod +x "$root/bin/hello"
}

# $work/initrd: that root as an initramfs which runs the command and reboots.
make_initrd() {
	cp -r "$root" "$work/initrd.d"
	ln -s busybox "$work/initrd.d/bin/reboot"
	printf '#!/bin/sh\nmount -t proc proc /proc\n/bin/hello\nreboot -f\n' \
		>"$work/initrd.d/init"
	chmod +x "$work/initrd.d/init"
	(cd "$work/initrd.d" && find . | LC_ALL=C sort |
		cpio -o -H newc --reproducible --quiet -R 0:0) >"$work/initrd"
}

# QEMU gets the same root and modules in an initramfs of its own.
qemu_files() {
	local d f i m x

	mkdir "$work/fw"
	for d in /usr/share/qemu /usr/share/seabios; do
		for f in bios-microvm.bin linuxboot_dma.bin pvh.bin; do
			[ ! -e "$d/$f" ] || cp -nL "$d/$f" "$work/fw/"
		done
	done
	for k in "$@"; do
		{ read -r _ && read -r m; } < <("$top/tools/fetch-kernel.sh" "$k")
		i=$work/initrd-$k
		cp -r "$root" "$i" && mkdir -p "$i"/{mod,new}
		for f in insmod chroot reboot sleep; do
			ln -s busybox "$i/bin/$f"
		done
		for f in virtio_ring virtio virtio_mmio virtio_blk; do
			x=$(find "$m" -name "$f.ko*")
			case $x in
			"") ;; # built in
			*.xz) xz -dc "$x" >"$i/mod/$f.ko" ;;
			*) cp "$x" "$i/mod/" ;;
			esac
		done
		cat >"$i/init" <<'IN'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
if grep -q fromdisk /proc/cmdline; then
	for f in virtio_ring virtio virtio_mmio virtio_blk; do
		[ ! -e /mod/$f.ko ] || insmod /mod/$f.ko
	done
	while [ ! -e /dev/vda ]; do sleep 0.02; done
	mount -t ext4 /dev/vda /new
	mount -t proc proc /new/proc
	chroot /new /bin/hello
else
	/bin/hello
fi
reboot -f
IN
		chmod +x "$i/init"
		(cd "$i" && find . | LC_ALL=C sort |
			cpio -o -H newc --reproducible --quiet -R 0:0) >"$i.cpio"
	done
}
