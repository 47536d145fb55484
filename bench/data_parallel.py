"""Data-parallel Programs: CompiledProgram.with_data_parallel over CPU places, against one place with all cores.

    python -m bench.data_parallel [WORKLOAD …] [--forms one,two,reduce,list] [--peers millstream,fluid] [--rounds 3]

Every form of a workload trains on the same batch from the same parameters: `one` by the Executor on one place with both
cores, `two` split over two places, `reduce` with BuildStrategy.ReduceStrategy.Reduce, `list` fed with a dict for each
place. PaddlePaddle 1.8.5 runs where MILLSTREAM_ORACLE_PYTHON names its interpreter. Forms and peers take turns; medians
count. The losses, means over places, must be those of Fluid's same form. Pictures are cut to 64x64.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = {"millstream": "millstream.fluid", "fluid": "paddle.fluid"}
WORKLOADS = "lenet,resnet50,mobilenet_v1,word2vec,ctr_dnn,imdb_stacked,transformer"
FORMS = "one,two,reduce,list"
PLACES, PICTURE = 2, 64
TOLERANCE = (1e-4, 1e-2)  # of the first step's loss and of later ones, as in bench.runner


def shares(fluid, feed):
    """A dict for each place."""
    found = [{} for _ in range(PLACES)]
    for name, value in feed.items():
        if isinstance(value, np.ndarray):
            parts = np.array_split(value, PLACES)
        else:
            lengths = value.recursive_sequence_lengths()[0]
            parts, array, at = [], np.array(value), 0
            for of_place in np.array_split(lengths, PLACES):
                count = int(of_place.sum())
                rows = array[at : at + count]
                parts.append(fluid.create_lod_tensor(rows, [[int(n) for n in of_place]], fluid.CPUPlace()))
                at += count
        for part, place in zip(parts, found):
            place[name] = part
    return found


def spread(run, form):
    """Let a `worker.FluidRun` train on several places."""
    fluid, strategy = run.fluid, run.fluid.BuildStrategy()
    if form == "reduce":
        strategy.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.Reduce
    compiled = fluid.CompiledProgram(run.main).with_data_parallel(
        loss_name=run.loss.name, build_strategy=strategy, places=fluid.cpu_places(PLACES)
    )
    feed = shares(fluid, run.feed) if form == "list" else run.feed

    def step():
        with fluid.scope_guard(run.scope):
            return float(run.exe.run(compiled, feed=feed, fetch_list=[run.loss])[0].mean())

    return step


def work(workload, peer, form, path):
    """In a worker: steps as asked on stdin, milliseconds on stdout."""
    sys.path[:1] = [HERE, os.path.dirname(HERE)]
    import worker

    feed = worker.importlib.import_module("workloads." + workload).FEED
    if "image" in feed:
        feed["image"] = np.ascontiguousarray(feed["image"][:, :, :PICTURE, :PICTURE])
    run = worker.FluidRun(MODULES[peer], worker.importlib.import_module("workloads." + workload))
    if os.path.exists(path):
        run.start_from(worker.load(path))
    else:
        worker.save(path, run.parameters())
    step = run.step if form == "one" else spread(run, form)
    worker.say({"losses": [step() for _ in range(worker.FIRST_STEPS)]})
    for line in iter(sys.stdin.readline, ""):
        times, cpu = [], worker.time.process_time()
        end = worker.time.perf_counter() + float(line)
        while not times or worker.time.perf_counter() < end:
            start = worker.time.perf_counter()
            step()
            times.append(1000 * (worker.time.perf_counter() - start))
        cpu = 1000 * (worker.time.process_time() - cpu) / len(times)
        worker.say({"ms": statistics.median(times), "cpu_ms": cpu, "peak_mib": worker.memory()[1]})


class Peer:
    """A process that runs one form of a workload.

    OMP_NUM_THREADS is PaddlePaddle's number of threads within an operator, for each place: one for each core.
    """

    def __init__(self, workload, peer, form, path, log):
        from bench.peers import environment, interpreter

        self.name, self.form, self.ms, self.cpu, self.peak = peer, form, [], [], None
        threads = 1 if peer == "fluid" and form != "one" else PLACES
        command = [interpreter(peer), os.path.abspath(__file__), "--worker", workload, peer, form, path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(threads)
        )
        self.losses = self.read()["losses"]

    def read(self):
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name}, {self.form}: ended with status {self.process.wait()}")

    def round(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self.read()
        self.ms.append(answer["ms"])
        self.cpu.append(answer["cpu_ms"])
        self.peak = answer["peak_mib"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ratio(peer, other):
    """Median over rounds of the times' ratios, as a column."""
    if other is None or other is peer:
        return ""
    return f"{statistics.median(a / b for a, b in zip(peer.ms, other.ms)):.2f}"


def measure(workload, options, path, log):
    """Print a line for each form; whether all losses agree."""
    from bench.runner import disagreement

    running, sound = [], True
    try:
        for peer in options.peers.split(","):
            for form in options.forms.split(","):
                running.append(Peer(workload, peer, form, path, log))
        for _ in range(options.rounds):
            for p in running:
                p.round(options.seconds)
        found = {(p.name, p.form): p for p in running}
        for p in running:
            same, alone = found.get(("fluid", p.form)), found.get((p.name, "one"))
            differs = disagreement(p.losses, same.losses, TOLERANCE) if same else ""
            sound = sound and not differs
            columns = [workload, p.form, p.name, f"{statistics.median(p.ms):.2f}", f"{statistics.median(p.cpu):.2f}"]
            columns += [ratio(p, same), ratio(p, alone), str(p.peak), differs or "agree"]
            print("| " + " | ".join(columns) + " |", flush=True)
    finally:
        for p in running:
            p.close()
    return sound


def main():
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return 0
    known = "millstream,fluid" if os.environ.get("MILLSTREAM_ORACLE_PYTHON") else "millstream"
    parser = argparse.ArgumentParser(prog="python -m bench.data_parallel", description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="*", default=WORKLOADS.split(","), help=f"({WORKLOADS})")
    parser.add_argument("--forms", default=FORMS, help="with commas between (%(default)s)")
    parser.add_argument("--peers", default=known, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn (%(default)s)")
    options = parser.parse_args()
    print("| workload | form | peer | ms | cpu ms | / Fluid | / one place | peak MiB | losses |" + "\n|" + " --- |" * 9)
    sound = True
    for workload in options.workloads:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
            path = os.path.join(folder, "parameters.npz")
            sound = measure(workload, options, path, log) and sound
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
