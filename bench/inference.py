"""Latency at batch 1 and throughput at batch 16 of saved models, against engines called directly on the same model.

    python -m bench.inference [MODEL …] [--batch 1,16] [--rounds 5] [--peers onnxruntime,…] [--out FILE.md]

millstream.load(dir, engine="auto") stands against onnxruntime and OpenVINO on the ONNX file exported from the same
directory, against torch.compile of a module with the same parameters, and, where MILLSTREAM_ORACLE_PYTHON names a Python
with it, against PaddlePaddle 1.8.5's own predictor on the same directory (in its process, by zero copy). They take turns:
every round runs each for about half a second (the lower quartile counts), first another one each time. Results of all
are compared with the native ones before. The best other is the one with the least median; the ratio is the median of the
rounds' ratios to it; the one to PaddlePaddle 1.8.5 stands beside it. Models of the packages jieba and LAC get the
sentences of tests/apps, one after another, and figures are of one request. Without arguments it takes about half an
hour on two cores, half of it in torch's compiler (--peers leaves it out). The exit status is 1 when results differ, a
peer fails, the ratio to engines is above --limit or, of taggers, the one to PaddlePaddle 1.8.5 above --paddle-limit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

import inference_fluid  # noqa: E402
import inference_models as models  # noqa: E402
import torch  # noqa: E402

import millstream  # noqa: E402
from millstream import onnx  # noqa: E402

PADDLE = "paddle 1.8.5"
PEERS = ("onnxruntime", "openvino", "torch.compile", PADDLE)
TAGGERS = ("lac", *models.PACKAGED)


def onnxruntime_peer(name, folder, path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kept = {i.name for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs() if ".lod" not in o.name]
    return lambda feed: session.run(outputs, {n: a for n, a in feed.items() if n in kept})


def openvino_peer(name, folder, path, threads):
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    run = compiled.create_infer_request()
    names = [next(iter(port.names)) for port in compiled.inputs]
    outputs = [port for port in compiled.outputs if not any(".lod" in n for n in port.names)]

    def call(feed):
        found = run.infer([feed[n] for n in names], share_inputs=True)
        return [found[port] for port in outputs]

    return call


def torch_peer(name, folder, path, threads):
    from inference_torch import torch_module  # here: the others need no torch.compile

    compiled = torch.compile(torch_module(name, folder), options={"freezing": True}, dynamic=False)

    def call(feed):
        with torch.no_grad():
            found = compiled(*(torch.from_numpy(np.ascontiguousarray(a)) for a in feed.values()))
        return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]

    return call


MAKERS = {"onnxruntime": onnxruntime_peer, "openvino": openvino_peer, "torch.compile": torch_peer}


class Here:
    """A peer in this process."""

    def __init__(self, run, feeds, clock):
        self.run, self.feeds, self.clock = run, feeds, clock
        self.results = [run(feed) for feed in feeds]

    def times(self, count):
        """Milliseconds of one request in each of `count` passes over all."""
        found = []
        for _ in range(count):
            start = self.clock()
            for feed in self.feeds:
                self.run(feed)
            found.append((self.clock() - start) * 1e3 / len(self.feeds))
        return found

    def close(self):
        pass


class Predictor:
    """PaddlePaddle 1.8.5's predictor in a process of its own (bench/inference_fluid.py)."""

    def __init__(self, folder, arrays, threads, clock):
        place = os.path.join(folder, "requests")
        os.makedirs(place, exist_ok=True)
        path = os.path.join(place, "requests.npz")
        inference_fluid.stored(arrays, path)
        env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "GOMP_SPINCOUNT")}
        env.update(OMP_NUM_THREADS=str(threads), GLOG_minloglevel="3")
        program = os.path.join(HERE, "inference_fluid.py")
        command = [os.environ["MILLSTREAM_ORACLE_PYTHON"], program, "paddle.fluid", folder, path, str(threads)]
        command.append(clock.__name__)
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=place
        )
        self.note = self.answer()["without"]
        self.ask("results")
        with np.load(os.path.join(place, "RESULTS.npz")) as found:
            self.results = [[] for _ in arrays]
            for key in sorted(found.files):
                self.results[int(key.split(":")[0])].append(found[key])

    def answer(self):
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"its process ended with status {self.process.wait()}")

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.answer()

    def times(self, count):
        return self.ask(count)["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def turns(runs, rounds):
    """Milliseconds by peer and round: the quarter of runs that a busy machine disturbed least."""
    times = {name: [] for name in runs}
    counts = {}
    for name, run in runs.items():
        run.times(1)
        took = run.times(1)[0] / 1e3 * len(runs["millstream"].feeds)
        counts[name] = 1 if took > 0.5 else max(2, min(300, int(0.5 / max(took, 1e-6))))
    order = list(runs)
    for k in range(rounds):
        for name in order[k % len(order) :] + order[: k % len(order)]:
            run = runs[name]
            if counts[name] > 1:
                run.times(1)
            found = run.times(counts[name])
            times[name].append(statistics.quantiles(found, n=4)[0] if len(found) > 1 else found[0])
    return times


def gap(found, wanted):
    """The largest difference, relative to the largest value of each result."""
    pairs = [(np.asarray(a, "float64"), np.asarray(b, "float64")) for a, b in zip(found, wanted)]
    if len(found) != len(wanted) or any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9)) for a, b in pairs)


def compare(name, batches, options):
    """One row a batch size."""
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.process_time if options.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        models.save(name, folder)
        path = os.path.join(folder, "model.onnx")
        onnx.export_model(folder, path, model_filename="__model__", params_filename="__params__")
        mine = millstream.load(folder, engine="auto", remember=False)
        peers, failed = {}, {}

        def of_ours(feed):
            return list(mine.run(feed).values())

        for peer in options.peers:
            if peer == PADDLE or (peer == "torch.compile" and name in models.PACKAGED):
                continue
            try:
                peers[peer] = MAKERS[peer](name, folder, path, threads)
            except Exception as error:  # whatever another runtime raises
                failed[peer] = str(error)
        for batch in batches:
            feeds = models.requests(name, batch)
            makers = {"millstream": lambda feeds=feeds: Here(of_ours, feeds, clock)}
            arrays = [models.arrays(feed) for feed in feeds]
            makers.update({p: lambda run=run, arrays=arrays: Here(run, arrays, clock) for p, run in peers.items()})
            if PADDLE in options.peers:
                makers[PADDLE] = lambda arrays=arrays: Predictor(folder, arrays, threads, clock)
            wanted = [list(millstream.load(folder).run(feed).values()) for feed in feeds]
            row = measure(makers, wanted, dict(failed), options.rounds)
            yield {"model": name, "batch": batch, "engine": mine.engine_for(feeds[0]), **row}


def measure(makers, wanted, failed, rounds):
    runs, gaps = {}, {}
    try:
        for peer, make in makers.items():
            try:
                runs[peer] = make()
                gaps[peer] = max(gap(found, want) for found, want in zip(runs[peer].results, wanted))
            except Exception as error:
                failed[peer] = str(error)
        times = turns(runs, rounds)
    finally:
        for run in runs.values():
            run.close()
    row = {p: statistics.median(t) for p, t in times.items()}
    row["without"] = getattr(runs.get(PADDLE), "note", [])

    def ratio(peer):
        return statistics.median([a / b for a, b in zip(times["millstream"], times[peer])])

    others = [p for p in runs if p not in ("millstream", PADDLE)]
    if others:
        row["best"] = min(others, key=lambda p: row[p])
        row["ratio"] = ratio(row["best"])
    if PADDLE in runs:
        row["to paddle"] = ratio(PADDLE)
    return {**row, "largest gap": max(gaps.values()), "gaps": gaps, "failed": {p: e[:300] for p, e in failed.items()}}


def table(rows):
    peers = [p for p in ("millstream", *PEERS) if any(p in r for r in rows)]
    columns = ["model", "batch", "chosen", *(p + " ms" for p in peers), "best other", "to it", "to paddle", "largest gap"]
    columns.append("a second")
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for r in rows:
        cells = [f"{r[p]:.3f}" if p in r else "fails" if p in r["failed"] else "" for p in peers]
        ratios = " | ".join(f"{r[k]:.3f}" if k in r else "" for k in ("ratio", "to paddle"))
        speed = r["batch"] * 1e3 / r["millstream"]
        head = f"| {r['model']} | {r['batch']} | {r['engine']} | {' | '.join(cells)} | {r.get('best', '')}"
        lines.append(f"{head} | {ratios} | {r['largest gap']:.1e} | {speed:.1f} |")
    return "\n".join(lines) + "\n"


def is_wrong(row, options):
    slow = row.get("ratio", 0.0) > options.limit
    slow |= row["model"] in TAGGERS and row.get("to paddle", 0.0) > options.paddle_limit
    return row["largest gap"] > 1e-3 or bool(row["failed"]) or slow


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.inference", description=__doc__.split("\n")[0])
    known_models = [*models.MODELS, *models.PACKAGED]
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"all when left out: {', '.join(known_models)}")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help=f"{','.join(PEERS)}; torch.compile needs a C++ compiler, and minutes")
    parser.add_argument("--threads", type=int, help="of one request (default: as torch is set)")
    parser.add_argument("--cpu", action="store_true", help="processor time, for one thread on a busy machine")
    parser.add_argument("--limit", type=float, default=1.03, help="the ratio that is allowed (%(default)s)")
    parser.add_argument("--paddle-limit", type=float, default=0.25, help="to PaddlePaddle, for taggers (%(default)s)")
    parser.add_argument("--out", help="Markdown file to write")
    options = parser.parse_args(argv)
    there = [p for p in PEERS if p != PADDLE or os.environ.get("MILLSTREAM_ORACLE_PYTHON")]
    options.peers = there if options.peers is None else [p for p in options.peers.split(",") if p]
    for kind, given, known in (("model", options.models, known_models), ("peer", options.peers, PEERS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown {kind} {', '.join(unknown)}; known: {', '.join(known)}")
    if PADDLE in options.peers and PADDLE not in there:
        parser.error(f"{PADDLE}: MILLSTREAM_ORACLE_PYTHON names no interpreter")
    rows, wrong = [], 0
    for name in options.models or known_models:
        if models.left_out(name):
            print(f"{name}: {models.left_out(name)}")
            continue
        try:
            for row in compare(name, [int(b) for b in options.batch.split(",")], options):
                rows.append(row)
                print(json.dumps(row), flush=True)
        except Exception:  # the other models still count
            traceback.print_exc()
            wrong += 1
        if options.out:
            with open(options.out, "w") as fh:
                fh.write(table(rows))
    print(table(rows))
    wrong += sum(is_wrong(r, options) for r in rows)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
