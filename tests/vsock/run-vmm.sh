#!/bin/sh
# A stock guest under arcvmm itself, driven through its hybrid socket.
#
#   run-vmm.sh ARCVMM ENGINE ROOT KERNEL MODULES JOB...
#
# ROOT is made by prepare.sh (it holds the peer). Runs in
# busybox too, for it is also used inside the nested host.
set -u
arcvmm=$1 engine=$2 root=$3 kernel=$4 modules=$5
shift 5
work=$(mktemp -d)
ulimit -n 4096 2>/dev/null
XDG_RUNTIME_DIR=$work
export XDG_RUNTIME_DIR
"$arcvmm" run --engine "$engine" --kernel "$kernel" --modules "$modules" \
	--root "$root" --console "file:$work/console" --vsock-hairpin \
	--name "vsock-test-$$" -- /peer guest >"$work/log" 2>&1 </dev/null &
vmm=$!
uds=$work/arcvmm/vsock-test-$$/vsock
n=0
while [ ! -S "$uds" ] && [ $n -lt 100 ]; do
	sleep 0.1
	n=$((n + 1))
done
status=0
"$root/peer" host "$uds" "$@" || status=$?
[ $status -eq 0 ] || { cat "$work/log"; tail -n 20 "$work/console"; }
case "$status $*" in
"0 "*" off") wait $vmm || status=1 ;;
*) kill $vmm 2>/dev/null; wait $vmm ;;
esac
rm -rf "$work"
exit $status
