"""Record what PaddlePaddle 1.8.5 computes for the programs of this folder: recorded/programs/<id>.npz and programs.json.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> record.py [id prefix]
"""

import json
import os
import sys
import time
import traceback

import numpy as np
import paddle.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from program_model import Built, all_programs, feeds_checksum, read_persistables, run_after, run_steps  # noqa: E402

OUT = os.path.join(HERE, "recorded", "programs")


def statistics(value):
    """[count, mean, standard deviation, minimum, maximum]: what can be compared of random values."""
    return np.array([value.size, value.mean(), value.std(), value.min(), value.max()], "float64")


def record(name, module, variant):
    built = Built(fluid, module, variant)
    exe, scope, arrays = fluid.Executor(fluid.CPUPlace()), fluid.Scope(), {}
    with fluid.scope_guard(scope):
        exe.run(built.startup)
        initial = read_persistables(scope, built.persistables)
        losses, kept, lods = run_steps(fluid, exe, built)
        final = read_persistables(scope, built.persistables)
        kept.update(run_after(fluid, exe, built))
    if built.model.statistics:
        arrays.update(("stat." + k, statistics(v.astype("float64"))) for k, v in initial.items())
    else:
        arrays.update(("init." + k, v) for k, v in initial.items())
        arrays.update(("final." + k, v) for k, v in final.items() if built.model.train is not None)
    arrays.update(kept)
    if losses:
        arrays["loss"] = np.array(losses, "float64")
        assert np.isfinite(arrays["loss"]).all(), arrays["loss"]
    np.savez_compressed(os.path.join(OUT, name + ".npz"), **arrays)
    print("%-28s %s" % (name, " ".join("%.5f" % v for v in losses[:1] + losses[-1:])))
    return {
        "parameters": built.parameters,
        "persistables": built.persistables,
        "variables": built.variables,
        "forward_ops": built.forward_ops,
        "all_ops": built.all_ops,
        "initial": sorted(initial),
        "lods": {k: v for k, v in lods.items() if v},
        "feeds": feeds_checksum(built.model.feeds),
    }


def main():
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    index = os.path.join(HERE, "recorded", "programs.json")
    found = {}
    if only and os.path.exists(index):
        with open(index) as source:
            found = json.load(source)
    if not os.path.isdir(OUT):
        os.makedirs(OUT)
    for name, module, variant in all_programs():
        if not name.startswith(only):
            continue
        started = time.time()
        try:
            found[name] = record(name, module, variant)
        except Exception:
            print("FAILED", name, "\n".join(traceback.format_exc().strip().splitlines()[-25:]))
        if time.time() - started > 2:
            print("slow:", name, "%.1f s" % (time.time() - started))
    with open(index, "w") as out:
        out.write(
            "{\n"
            + ",\n".join(json.dumps(k) + ":" + json.dumps(v, separators=(",", ":")) for k, v in sorted(found.items()))
            + "\n}\n"
        )


if __name__ == "__main__":
    main()
