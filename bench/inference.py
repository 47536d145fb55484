"""Latency at batch 1 and throughput at batch 16 of saved models, against engines called directly on the same model.

    python -m bench.inference [MODEL …] [--batch 1,16] [--rounds 5] [--peers onnxruntime,…] [--out FILE.md]

millstream.load(dir, engine="auto") stands against onnxruntime and OpenVINO on the ONNX file exported from the same
directory, and against torch.compile of a module with the same parameters, in turn in one process: every round runs
each for about half a second (the lower quartile counts), first another one each time. Results of all are compared with
the native ones before. The best other is the one with the least median; the ratio is the median of the rounds' ratios
to it. Without arguments it takes about half an hour on two cores, half of it in torch's compiler (--peers leaves it
out). The exit status is 1 when results differ, a peer fails or a ratio is above --limit.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import traceback

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

import inference_models as models  # noqa: E402
import torch  # noqa: E402

import millstream  # noqa: E402
from millstream import onnx  # noqa: E402

PEERS = ("onnxruntime", "openvino", "torch.compile")


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


def turns(runs, rounds, clock):
    """Milliseconds by peer and round: the quarter of runs that a busy machine disturbed least."""
    times = {name: [] for name in runs}
    counts = {}
    for name, run in runs.items():
        run()
        start = clock()
        run()
        took = clock() - start
        counts[name] = 1 if took > 0.5 else max(2, min(300, int(0.5 / max(took, 1e-6))))
    order = list(runs)
    for k in range(rounds):
        for name in order[k % len(order) :] + order[: k % len(order)]:
            run, found = runs[name], []
            if counts[name] > 1:
                run()
            for _ in range(counts[name]):
                start = clock()
                run()
                found.append((clock() - start) * 1e3)
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
        for peer in options.peers:
            try:
                peers[peer] = MAKERS[peer](name, folder, path, threads)
            except Exception as error:  # whatever another runtime raises
                failed[peer] = str(error)
        for batch in batches:
            yield measure(name, folder, batch, mine, peers, dict(failed), options.rounds, clock)


def measure(name, folder, batch, mine, peers, failed, rounds, clock):
    feed = models.request(name, batch)
    arrays = models.arrays(name, feed)
    wanted = list(millstream.load(folder).run(feed).values())
    runs, gaps = {"millstream": lambda: mine.run(feed)}, {"millstream": gap(list(mine.run(feed).values()), wanted)}
    for peer, run in peers.items():
        try:
            gaps[peer] = gap(run(arrays), wanted)
            runs[peer] = lambda run=run: run(arrays)
        except Exception as error:
            failed[peer] = str(error)
    row = {"model": name, "batch": batch, "engine": mine.engine_for(feed)}
    times = turns(runs, rounds, clock)
    row.update({p: statistics.median(t) for p, t in times.items()})
    others = [p for p in runs if p != "millstream"]
    if others:
        best = min(others, key=lambda p: row[p])
        row["best"] = best
        row["ratio"] = statistics.median([a / b for a, b in zip(times["millstream"], times[best])])
    return {**row, "largest gap": max(gaps.values()), "gaps": gaps, "failed": {p: e[:300] for p, e in failed.items()}}


def table(rows):
    peers = [p for p in ("millstream", *PEERS) if any(p in r for r in rows)]
    columns = ["model", "batch", "chosen", *(p + " ms" for p in peers), "best other", "to it", "largest gap", "a second"]
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for r in rows:
        cells = [f"{r[p]:.2f}" if p in r else "fails" if p in r["failed"] else "" for p in peers]
        ratio = f"{r['ratio']:.3f}" if "ratio" in r else ""
        speed = r["batch"] * 1e3 / r["millstream"]
        head = f"| {r['model']} | {r['batch']} | {r['engine']} | {' | '.join(cells)} | {r.get('best', '')}"
        lines.append(f"{head} | {ratio} | {r['largest gap']:.1e} | {speed:.1f} |")
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.inference", description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"all when left out: {', '.join(models.MODELS)}")
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(PEERS), help="%(default)s; the last needs a C++ compiler, and minutes")
    parser.add_argument("--threads", type=int, help="of one request (default: as torch is set)")
    parser.add_argument("--cpu", action="store_true", help="processor time, for one thread on a busy machine")
    parser.add_argument("--limit", type=float, default=1.03, help="the ratio that is allowed (%(default)s)")
    parser.add_argument("--out", help="Markdown file to write")
    options = parser.parse_args(argv)
    options.peers = [p for p in options.peers.split(",") if p]
    for kind, given, known in (("model", options.models, models.MODELS), ("peer", options.peers, PEERS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"unknown {kind} {', '.join(unknown)}; known: {', '.join(known)}")
    rows, wrong = [], 0
    for name in options.models or models.MODELS:
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
    wrong += sum(r["largest gap"] > 1e-3 or bool(r["failed"]) or r.get("ratio", 0.0) > options.limit for r in rows)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
