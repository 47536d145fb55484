"""Benchmarks: every workload under millstream and each peer that is installed, in turn in one run.

    python -m bench [WORKLOAD …] [--rounds 7] [--peers millstream,fluid,torch] [--out bench/results]

PaddlePaddle 1.8.5 needs a Python 3.7: name its interpreter in MILLSTREAM_ORACLE_PYTHON. Each peer runs in a process of
its own; every round times a few steps of each peer one after another, so that a busy machine slows all alike. Ratios
are medians of the rounds' ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# Steps a round: about half a second of the slowest peer.
WORKLOADS = {
    "fit_a_line": 300,
    "lenet": 12,
    "word2vec": 40,
    "imdb_lstm": 4,
    "resnet50": 1,
}


class Peer:
    """A worker process."""

    def __init__(self, workload, name, threads):
        self.name = name
        python = sys.executable
        if name == "fluid":
            python = os.environ["MILLSTREAM_ORACLE_PYTHON"]
        # OPENBLAS_CORETYPE can force slow kernels on numpy; a benchmark takes the library's own choice.
        env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS")}
        env.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS="1", CPU_NUM="1", GLOG_minloglevel="3")
        self.process = subprocess.Popen(
            [python, os.path.join(HERE, "worker.py"), workload, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if name == "fluid" else None,
            text=True,
            env=env,
        )
        self.medians = []
        self.loss = self.peak = None
        self.read()

    def read(self):
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended with status {self.process.wait()}")

    def round(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.read()
        self.medians.append(statistics.median(answer["ms"]))
        self.loss, self.peak = answer["loss"], answer["peak_mib"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(workload, peers, rounds, threads):
    """Rows of one workload: one dict a peer."""
    running = []
    for name in peers:
        try:
            running.append(Peer(workload, name, threads))
        except (RuntimeError, KeyError, OSError) as error:
            print(f"{workload}: {name} left out: {error}", file=sys.stderr)
    for _ in range(rounds):
        for peer in running:
            peer.round(WORKLOADS[workload])
    ours = next((p for p in running if p.name == "millstream"), None)
    rows = []
    for peer in running:
        ratio = None
        if ours is not None and peer is not ours:
            ratio = statistics.median(a / b for a, b in zip(ours.medians, peer.medians))
        rows.append(
            {
                "workload": workload,
                "peer": peer.name,
                "ms": statistics.median(peer.medians),
                "low": min(peer.medians),
                "high": max(peer.medians),
                "ours_over_peer": ratio,
                "peak_mib": peer.peak,
                "loss": peer.loss,
            }
        )
        peer.close()
    return rows


def table(rows):
    titles = ["workload", "peer", "ms a step", "spread", "millstream / peer", "peak MiB"]
    lines = ["| " + " | ".join(titles) + " |", "| --- " * len(titles) + "|"]
    for r in rows:
        ratio = "" if r["ours_over_peer"] is None else f"{r['ours_over_peer']:.3f}"
        spread = f"{r['low']:.3f} - {r['high']:.3f}"
        lines.append(f"| {r['workload']} | {r['peer']} | {r['ms']:.3f} | {spread} | {ratio} | {r['peak_mib']} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peers", default="")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    peers = [p for p in options.peers.split(",") if p]
    if not peers:
        peers = ["millstream", "torch"] + (["fluid"] if os.environ.get("MILLSTREAM_ORACLE_PYTHON") else [])
    rows = []
    for workload in options.workloads or list(WORKLOADS):
        if workload not in WORKLOADS:
            parser.error(f"unknown workload {workload}; known: {', '.join(WORKLOADS)}")
        rows += measure(workload, peers, options.rounds, options.threads)
        print(table(rows[-len(peers) :]), flush=True)
    if options.out:
        os.makedirs(options.out, exist_ok=True)
        with open(os.path.join(options.out, "results.json"), "w") as out:
            json.dump(rows, out, indent=1)
        with open(os.path.join(options.out, "results.md"), "w") as out:
            out.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
