#!/usr/bin/env python3
"""What a command in a running guest takes: `arcvmm exec NAME -- true`.

    bench/exec.py ARCVMM [RUNS] [ENGINE] [6.1|6.12]

One guest (busybox root, 1 vCPU), RUNS processes (200), each measured from its
start to its end; `exec --time` says what of it was the guest's. Every run is
followed by two that show the floor: `arcvmm version`, a process of the same
program that does nothing, and `true` on this host. Milliseconds.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

arcvmm = os.path.realpath(sys.argv[1])
runs = int(sys.argv[2]) if len(sys.argv) > 2 else 200
engine = sys.argv[3] if len(sys.argv) > 3 else "soft"
version = sys.argv[4] if len(sys.argv) > 4 else "6.1"
top = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
kernel, modules = subprocess.check_output(
    [top + "/tools/fetch-kernel.sh", version], text=True).split()


def measured(out, *argv):
    """Milliseconds from start to end, and what it wrote to @out."""
    out.truncate(0)
    out.seek(0)
    actions = [(os.POSIX_SPAWN_DUP2, out.fileno(), fd) for fd in (1, 2)]
    start = time.monotonic_ns()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
    status = os.waitpid(pid, 0)[1]
    ms = (time.monotonic_ns() - start) / 1e6
    out.seek(0)
    text = out.read()
    if status:
        sys.exit(f"{' '.join(argv)}: status {status}: {text}")
    return ms, text


def line(what, values):
    v = sorted(values)
    print("%-44s %8.2f %8.2f %8.2f %8.2f" % (
        what, v[len(v) // 2], v[min(len(v) - 1, len(v) * 99 // 100)], v[0],
        v[-1]))


def main(work):
    os.environ["XDG_RUNTIME_DIR"] = work
    os.makedirs(work + "/root/bin")
    shutil.copy(shutil.which("busybox"), work + "/root/bin/busybox")
    os.symlink("busybox", work + "/root/bin/true")
    subprocess.check_call(
        [arcvmm, "run", "-d", "--name", "bench", "--engine", engine,
         "--kernel", kernel, "--modules", modules, "--root", work + "/root",
         "--serve"], stdout=subprocess.DEVNULL)
    whole, session, agent, command, nothing, host = ([] for _ in range(6))
    try:
        with open(work + "/out", "w+") as out:
            for i in range(runs + 1):
                ms, text = measured(out, arcvmm, "exec", "--time", "bench",
                                    "--", "true")
                t = [float(x) for x in re.findall(r"[0-9.]*[0-9]", text)]
                if i == 0:  # it waited for the boot, and warmed caches
                    continue
                whole.append(ms)
                command.append(t[0])
                agent.append(t[1])
                session.append(t[2])
                nothing.append(measured(out, arcvmm, "version")[0])
                host.append(measured(out, shutil.which("true"))[0])
    finally:
        subprocess.call([arcvmm, "kill", "bench"])
    print("engine %s, Linux %s, %d runs, %d CPUs, load %s" % (
        engine, version, runs, os.cpu_count(),
        open("/proc/loadavg").read().split()[0]))
    print("%-44s %8s %8s %8s %8s" % ("ms", "p50", "p99", "min", "max"))
    line("the whole process", whole)
    line("  from the agent's accept to the end", session)
    line("    in the guest: EXEC arrived to EXIT sent", agent)
    line("      the command: fork to reaping", command)
    line("  all but the agent's", [a - b for a, b in zip(whole, agent)])
    line("floor: arcvmm version", nothing)
    line("floor: true on this host", host)


with tempfile.TemporaryDirectory() as directory:
    main(directory)
