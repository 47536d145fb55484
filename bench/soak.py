"""Soak: training loops run for minutes; memory must stay flat.

    python -m bench.soak [WORKLOAD …] [--minutes 30] [--warm 0.1] [--tolerance 0.01]

Each workload runs in a process of its own. Its resident memory is read about twice a second after a warm-up (a share of
the time, at least 20 steps); the highest of the last fifth may be at most `tolerance` above the highest of the first
fifth. The exit status is 1 when one is not flat, a loss is not finite or a worker fails.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time

from bench.peers import HERE, WORKLOADS, environment, write_parameters


def soak(name, minutes, warm):
    """In the worker: {"steps", "memory": [MiB], "finite"} of one training loop."""
    sys.path[:1] = [HERE, os.path.dirname(HERE)]
    import worker

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "parameters.npz")
        write_parameters(name, path, int(os.environ["OMP_NUM_THREADS"]))
        step, _ = worker.make_step(name, "millstream", path)
    begin = time.monotonic()
    end, steps, samples, finite, last = begin + 60 * minutes, 0, [], True, 0.0
    while time.monotonic() < end or not samples:
        finite = math.isfinite(step()) and finite
        steps += 1
        now = time.monotonic()
        if steps >= 20 and now - begin >= 60 * minutes * warm and now - last >= 0.5:
            last = now
            samples.append(resident())
    return {"steps": steps, "memory": samples, "finite": finite}


def resident():
    """Resident MiB, as a float."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(samples):
    """Relative growth of the highest memory from the first fifth to the last."""
    part = max(1, len(samples) // 5)
    first, last = max(samples[:part]), max(samples[-part:])
    return last / first - 1.0


def run(name, minutes, warm, threads):
    command = [sys.executable, "-m", "bench.soak", name, "--worker", "--minutes", str(minutes), "--warm", str(warm)]
    done = subprocess.run(command, env=environment(threads), cwd=os.path.dirname(HERE), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-800:])
    return json.loads(done.stdout.splitlines()[-1])


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="all when left out")
    parser.add_argument("--minutes", type=float, default=30.0, help="for each (%(default)s)")
    parser.add_argument("--warm", type=float, default=0.1, help="share of the time that is warm-up (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=0.01, help="growth that is allowed (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    unknown = [w for w in options.workloads if w not in WORKLOADS]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; known: {', '.join(WORKLOADS)}")
    if options.worker:
        print(json.dumps(soak(options.workloads[0], options.minutes, options.warm)))
        return 0
    wrong = 0
    print("| workload | steps | MiB at first | MiB at last | growth | |\n" + "| --- " * 6 + "|")
    for name in options.workloads or WORKLOADS:
        try:
            result = run(name, options.minutes, options.warm, options.threads)
        except RuntimeError as error:
            wrong += 1
            print(f"| {name} | | | | | FAILED: {' '.join(str(error).split())} |", flush=True)
            continue
        memory, rise = result["memory"], growth(result["memory"])
        verdict = "flat" if rise <= options.tolerance else "GROWS"
        if not result["finite"]:
            verdict = "loss NOT FINITE"
        wrong += verdict != "flat"
        line = f"| {name} | {result['steps']} | {memory[0]:.1f} | {memory[-1]:.1f} | {100 * rise:+.2f} % | {verdict} |"
        print(line, flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
