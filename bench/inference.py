"""Latency at batch 1 and throughput at batch 16 of saved models, against the engines called directly.

    python -m bench.inference [MODEL …] [--batch 1,16] [--rounds 5] [--torch] [--out FILE.md]
    python -m bench.inference [MODEL] --soak MINUTES

millstream.load(dir, engine="auto") stands against onnxruntime and OpenVINO on the ONNX file exported from the same
directory, and with --torch against torch.compile of an equivalent module, in turn in one process: every round runs each
for about half a second (the lower quartile counts), and ratios are medians of the rounds' ratios to the fastest
other. Results are compared first.
With --soak, eight threads run clones on inputs of their own and compare every answer; the memory of the process is
printed every ten seconds.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

import inference_models as models  # noqa: E402
import torch  # noqa: E402

import millstream  # noqa: E402
from millstream import onnx  # noqa: E402


def onnxruntime_peer(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kept = {i.name for i in session.get_inputs()}
    return lambda feed: session.run(None, {n: a for n, a in feed.items() if n in kept})


def openvino_peer(path, threads):
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    run = compiled.create_infer_request()
    names = [next(iter(port.names)) for port in compiled.inputs]
    return lambda feed: list(run.infer([feed[n] for n in names], share_inputs=True).values())


def torch_peer(name):
    from inference_torch import torch_module  # here: the others need no torch.compile

    module = torch_module(name)
    compiled = torch.compile(module, options={"freezing": True})

    def call(feed):
        with torch.no_grad():
            return [compiled(*map(torch.from_numpy, feed.values()))]

    return call


def turns(peers, feed, rounds, clock):
    """Milliseconds by peer and round: the quarter of runs that a busy machine disturbed least."""
    times = {name: [] for name in peers}
    counts = {}
    for name, run in peers.items():
        run(feed)
        start = clock()
        run(feed)
        took = clock() - start
        counts[name] = 1 if took > 1 else max(2, min(300, int(0.5 / max(took, 1e-6))))
    for _ in range(rounds):
        for name, run in peers.items():
            found = []
            if counts[name] > 1:
                run(feed)
            for _ in range(counts[name]):
                start = clock()
                run(feed)
                found.append((clock() - start) * 1e3)
            times[name].append(statistics.quantiles(found, n=4)[0] if len(found) > 1 else found[0])
    return times


def compare(name, batches, options):
    """One row a batch size."""
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    clock = time.process_time if options.cpu else time.perf_counter
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models.save(name, folder)
        path = os.path.join(folder, "model.onnx")
        onnx.export_model(folder, path, model_filename="__model__", params_filename="__params__")
        mine = millstream.load(folder, engine="auto", remember=False)
        peers = {"millstream": mine.run, "onnxruntime": onnxruntime_peer(path, threads)}
        peers["openvino"] = openvino_peer(path, threads)
        if options.torch:
            peers["torch.compile"] = torch_peer(name)
        for batch in batches:
            feed = models.request(name, batch)
            want = millstream.load(folder).run(feed)
            gaps = {}
            for peer, run in peers.items():
                if peer != "torch.compile":
                    found = run(feed)
                    found = found.values() if isinstance(found, dict) else found
                    gaps[peer] = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, want.values()))
            if max(gaps.values()) > 1e-3:
                raise SystemExit(f"{name}: results differ: {gaps}")
            times = turns(peers, feed, options.rounds, clock)
            others = [p for p in peers if p != "millstream"]
            ratios = [t / min(times[p][k] for p in others) for k, t in enumerate(times["millstream"])]
            row = {"model": name, "batch": batch, "engine": mine.engine_for(feed), "ratio": statistics.median(ratios)}
            row.update({p: statistics.median(t) for p, t in times.items()})
            rows.append({**row, "largest gap": max(gaps.values())})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def table(rows):
    peers = [p for p in ("millstream", "onnxruntime", "openvino", "torch.compile") if any(p in r for r in rows)]
    lines = [f"| model | batch | chosen | {' | '.join(p + ' ms' for p in peers)} | to the best other | images/s |"]
    lines.append("| --- " * (len(peers) + 5) + "|")
    for r in rows:
        cells = [f"{r[p]:.2f}" if p in r else "" for p in peers]
        speed = r["batch"] * 1e3 / r["millstream"]
        head = f"| {r['model']} | {r['batch']} | {r['engine']} | {' | '.join(cells)}"
        lines.append(f"{head} | {r['ratio']:.3f} | {speed:.1f} |")
    return "\n".join(lines) + "\n"


def resident():
    """MiB of this process now."""
    with open("/proc/self/statm") as fh:
        return int(fh.read().split()[1]) * resource.getpagesize() / 2**20


def soak(name, minutes):
    """Eight threads on clones; returns the number of wrong answers."""
    wrong, done = [], [0] * 8
    with tempfile.TemporaryDirectory() as folder:
        models.save(name, folder)
        model = millstream.load(folder, engine="auto", remember=False, threads=1)
        feeds = [{n: np.roll(a, k, -1) for n, a in models.request(name, 1).items()} for k in range(8)]
        want = [model.run(feed) for feed in feeds]
        end = time.monotonic() + minutes * 60

        def work(k):
            mine = model.clone()
            while time.monotonic() < end:
                found = mine.run(feeds[k])
                done[k] += 1
                if not all(np.allclose(found[n], want[k][n], rtol=1e-4, atol=1e-6) for n in found):
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            print(f"{sum(done)} answers, {len(wrong)} wrong, {resident():.0f} MiB", flush=True)
            time.sleep(10)
    print(f"{model.engine_for(feeds[0])}: {sum(done)} answers, {len(wrong)} wrong, {resident():.0f} MiB at the end")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(models.MODELS), help=", ".join(models.MODELS))
    parser.add_argument("--batch", default="1,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help="torch.compile too (it needs a C++ compiler, and minutes)")
    parser.add_argument("--threads", type=int, help="of one request (default: as torch is set)")
    parser.add_argument("--cpu", action="store_true", help="processor time, for one thread on a busy machine")
    parser.add_argument("--out", help="Markdown file to write")
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in models.MODELS]
    if unknown:
        parser.error(f"unknown model {', '.join(unknown)}; known: {', '.join(models.MODELS)}")
    if options.soak:
        sys.exit(1 if soak(options.models[0] if len(options.models) == 1 else "mobilenet", options.soak) else 0)
    rows = []
    for name in options.models:
        rows += compare(name, [int(b) for b in options.batch.split(",")], options)
    print(table(rows))
    if options.out:
        with open(options.out, "w") as fh:
            fh.write(table(rows))


if __name__ == "__main__":
    main()
