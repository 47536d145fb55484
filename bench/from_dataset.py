"""train_from_dataset: a click-through model over files in the MultiSlot format, 26 sparse slots, 13 dense numbers, a label.

    python -m bench.from_dataset [--rows 60000] [--threads 1,2] [--peers millstream,fluid]

Two measures of each peer on the same files: an empty Program (nothing but reading and parsing), and training (a table of
100,000 ids, two layers, SGD with Hogwild threads). PaddlePaddle 1.8.5 runs where MILLSTREAM_ORACLE_PYTHON names its
interpreter. Peers take turns; the fastest of three counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
SLOTS, DENSE, IDS, BATCH = 26, 13, 100000, 512
MODULES = {"millstream": "millstream.fluid", "fluid": "paddle.fluid"}
TURNS = 3


def write_files(folder, rows, count=2):
    """Paths of `count` files with `rows` lines together."""
    rng, paths = np.random.RandomState(0), []
    for k in range(count):
        ids = np.minimum(rng.zipf(1.3, (rows // count, SLOTS)), IDS - 1)
        dense, label = rng.rand(rows // count, DENSE), rng.randint(0, 2, rows // count)
        paths.append(os.path.join(folder, f"part-{k}"))
        with open(paths[-1], "w") as out:
            for line, numbers, y in zip(ids, dense, label):
                words = [f"1 {i}" for i in line]
                words.append(f"{DENSE} " + " ".join(f"{v:.6f}" for v in numbers))
                out.write(" ".join(words) + f" 1 {y}\n")
    return paths


def build(fluid, trained):
    """(variables of the slots, loss)."""
    layers = fluid.layers
    ids = [fluid.data(f"C{k}", [None, 1], "int64") for k in range(SLOTS)]
    dense, label = fluid.data("dense", [None, DENSE]), fluid.data("label", [None, 1], "int64")
    inputs = ids + [dense, label]
    if not trained:
        return inputs, layers.reduce_sum(dense)
    attr = fluid.ParamAttr(name="table")
    rows = [layers.embedding(i, [IDS, 10], is_sparse=True, param_attr=attr) for i in ids]
    x = layers.concat(rows + [dense], 1)
    for _ in range(2):
        x = layers.fc(x, 64, act="relu")
    loss = layers.mean(layers.cross_entropy(layers.fc(x, 2, act="softmax"), label))
    fluid.optimizer.SGD(0.01).minimize(loss)
    return inputs, loss


def seconds(module, paths, threads, trained):
    """In a worker: time of one pass over the files, after one over a part of them."""
    import importlib

    fluid = importlib.import_module(module)
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 7
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        inputs, _ = build(fluid, trained)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(startup)
    found = []
    for files in (paths[:1], *[paths] * TURNS):
        dataset = fluid.DatasetFactory().create_dataset("QueueDataset")
        dataset.set_use_var(inputs)
        dataset.set_batch_size(BATCH)
        dataset.set_thread(min(threads, len(files)))
        dataset.set_filelist(list(files))
        begin = time.time()
        exe.train_from_dataset(main, dataset)
        found.append(time.time() - begin)
    return min(found[1:])


def run(peer, paths, threads, trained):
    """The same in a process of the peer's interpreter."""
    python = sys.executable if peer == "millstream" else os.environ["MILLSTREAM_ORACLE_PYTHON"]
    command = [python, os.path.abspath(__file__), "--worker", json.dumps([MODULES[peer], paths, threads, trained])]
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONPATH=os.path.dirname(HERE))
    done = subprocess.run(command, env=environment, capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace").strip()[-800:])
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(prog="python -m bench.from_dataset", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=60000, help="lines of all files (%(default)s)")
    parser.add_argument("--threads", default="1,2", help="with commas between (%(default)s)")
    known = "millstream,fluid" if os.environ.get("MILLSTREAM_ORACLE_PYTHON") else "millstream"
    parser.add_argument("--peers", default=known, help="(%(default)s)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(seconds(*json.loads(options.worker))))
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(folder, options.rows)
        size = sum(os.path.getsize(p) for p in paths) / 1e6
        print("| what | threads | peer | s | rows/s | MB/s |\n| --- | --- | --- | --- | --- | --- |")
        for trained in (False, True):
            for threads in [int(t) for t in options.threads.split(",")]:
                for peer in options.peers.split(","):
                    took = run(peer, paths, threads, trained)
                    what = "training" if trained else "reading"
                    rates = f"{options.rows / took:.0f} | {size / took:.1f}"
                    print(f"| {what} | {threads} | {peer} | {took:.2f} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
