"""Benchmarks: every workload under millstream and each peer that is installed, in turn in one run.

    python -m bench [WORKLOAD …] [--peers millstream,fluid,torch] [--rounds 7] [--out bench/results]

Peers in interpreters of their own are named by variables: MILLSTREAM_ORACLE_PYTHON (PaddlePaddle 1.8.5, Python 3.7),
MILLSTREAM_PADDLE3_PYTHON, MILLSTREAM_JAX_PYTHON. Each peer runs in a process of its own, from the same parameters and on
the same data; every round gives each peer a turn, so that a busy machine slows all alike. Ratios are medians of the
rounds' ratios. The exit status is 1 when a peer failed or its losses differ, 2 for a wrong argument.
"""

import argparse
import os
import sys

from bench import report, runner
from bench.peers import INTERPRETERS, WORKLOADS


def declare(parser):
    """The command's arguments, on `parser`."""
    known = ", ".join(WORKLOADS)
    parser.add_argument("workloads", nargs="*", metavar="NAME", default=[], help=f"all when left out: {known}")
    parser.add_argument("--peers", default=",".join(INTERPRETERS), help="names with commas between (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each peer (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long a turn takes (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each peer (%(default)s)")
    parser.add_argument("--out", default="", help="folder for results.md, .json, .svg and .png")


def run(options):
    """Measure, print, write; the exit status."""
    peers = [p for p in options.peers.split(",") if p]
    for kind, given, known in (("workload", options.workloads, WORKLOADS), ("peer", peers, INTERPRETERS)):
        for name in given:
            if name not in known:
                sys.stderr.write(f"bench: unknown {kind} {name!r}; known: {', '.join(known)}\n")
                return 2
    if options.rounds < 0 or options.threads < 1 or options.seconds <= 0:
        sys.stderr.write("bench: --rounds must be 0 or more, --threads 1 or more, --seconds above 0\n")
        return 2

    def show(result):
        sys.stdout.write(report.markdown([result]) + "\n\n")
        sys.stdout.flush()

    chosen = options.workloads or WORKLOADS
    results = runner.measure_all(chosen, peers, options.rounds, options.threads, options.seconds, show)
    if options.out:
        report.write(results, options.out)
    return 0 if runner.sound(results) else 1


def main():
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    declare(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
