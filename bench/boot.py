#!/usr/bin/env python3
"""Boot time of a stock kernel on the software CPU against QEMU's TCG.

    bench/boot.py ARCVMM [ROUNDS] [6.1|6.12]

The same kernel, initramfs (busybox, an init that prints a word and powers off)
and command line in every VMM, in alternation, so that noise falls on all alike.
Measured: seconds from the start of the process to that word on the serial
console, and the CPU seconds of the process. Reports medians and spreads.
"""
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

arcvmm = os.path.realpath(sys.argv[1])
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
version = sys.argv[3] if len(sys.argv) > 3 else "6.1"
top = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
kernel = subprocess.check_output(
    [top + "/tools/fetch-kernel.sh", version], text=True).split()[0]
word = b"USERSPACE-REACHED"
# tsc_early_khz: without a known TSC frequency QEMU's microvm spins in
# calibration; the others have it from kvm-clock or the PIT.
khz = next((float(l.split(":")[1]) * 1000 for l in open("/proc/cpuinfo")
            if l.startswith("cpu MHz")), 2000000)
cmdline = ("console=ttyS0 quiet cryptomgr.notests panic=-1 tsc=reliable "
           "no_timer_check tsc_early_khz=%d rdinit=/init" % khz)


def make_initrd(path):
    with tempfile.TemporaryDirectory() as d:
        for sub in ("bin", "proc", "dev"):
            os.mkdir(f"{d}/{sub}")
        shutil.copy(shutil.which("busybox"), f"{d}/bin/busybox")
        with open(f"{d}/init", "w") as f:
            f.write("#!/bin/busybox sh\n/bin/busybox echo %s\n"
                    "/bin/busybox poweroff -f\n" % word.decode())
        os.chmod(f"{d}/init", 0o755)
        with open(path, "wb") as out:
            find = subprocess.Popen(["find", "."], cwd=d,
                                    stdout=subprocess.PIPE)
            subprocess.check_call(["cpio", "-o", "-H", "newc", "--quiet",
                                   "-R", "0:0"], cwd=d, stdin=find.stdout,
                                  stdout=out)


def machines(initrd):
    qemu = ["qemu-system-x86_64", "-accel", "tcg", "-m", "256M", "-nodefaults",
            "-no-user-config", "-no-reboot", "-display", "none", "-serial",
            "stdio", "-kernel", kernel, "-initrd", initrd, "-append", cmdline]
    return {
        "arcvmm soft": [arcvmm, "run", "--engine", "soft", "--kernel", kernel,
                        "--no-init", "--initrd", initrd, "--uart", "--mem",
                        "256M", "--cmdline", cmdline],
        "qemu tcg microvm": qemu + ["-M", "microvm,acpi=on,isa-serial=on,"
                                    "rtc=on", "-cpu", "Nehalem"],
        "qemu tcg pc": qemu + ["-M", "pc", "-cpu", "Nehalem"],
    }


def run(argv):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seen, reached = b"", None
    while chunk := os.read(p.stdout.fileno(), 4096):
        seen += chunk
        if reached is None and word in seen:
            reached = time.monotonic() - start
        if time.monotonic() - start > 120:
            break
    if reached is not None:
        # A machine without ACPI power-off stays; it has done its part.
        try:
            p.wait(2)
        except subprocess.TimeoutExpired:
            pass
    p.kill()
    p.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime +
                                               before.ru_stime)
    return reached, cpu


def main():
    with tempfile.TemporaryDirectory() as d:
        initrd = d + "/initrd"
        make_initrd(initrd)
        all_ = machines(initrd)
        wall = {n: [] for n in all_}
        cpu = {n: [] for n in all_}
        for _ in range(rounds):
            for name, argv in all_.items():
                t, c = run(argv)
                if t is not None:
                    wall[name].append(t)
                    cpu[name].append(c)
    print(f"Linux {version}, 1 vCPU, {rounds} rounds in alternation, load "
          f"{os.getloadavg()[0]:.1f}")
    print(f"{'':20}{'reached':>9}{'median s':>10}{'min..max':>16}"
          f"{'CPU s':>8}{'ratio':>8}")
    base = statistics.median(wall["arcvmm soft"] or [float("nan")])
    for name in all_:
        w = wall[name]
        if not w:
            print(f"{name:20}{0:>6}/{rounds}")
            continue
        m = statistics.median(w)
        print(f"{name:20}{len(w):>6}/{rounds}{m:>10.2f}"
              f"{min(w):>9.2f}..{max(w):.2f}"
              f"{statistics.median(cpu[name]):>8.2f}{m / base:>8.2f}")


main()
