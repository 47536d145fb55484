"""Record what PaddlePaddle 1.8.5 computes for the families: recorded/<id>.npz and families.json.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> record_families.py [id prefix]
"""

import json
import os
import sys
import time
import traceback

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "oracle")]

import paddle.fluid as fluid  # noqa: E402

from families import all_families, run_family  # noqa: E402

INDEX = os.path.join(HERE, "recorded", "families.json")


def record(name, module, variant):
    result = run_family(fluid, module, variant)
    assert np.isfinite(result.losses).all(), result.losses
    path = os.path.join(HERE, "recorded", name.replace("/", ".") + ".npz")
    np.savez_compressed(path, loss=result.losses, **result.arrays)
    print("%-34s %6d B  %s" % (name, os.path.getsize(path), np.array2string(result.losses.T, precision=5)))
    return dict(result.facts, lods={k: v for k, v in result.lods.items() if v})


def main():
    only, found = sys.argv[1] if len(sys.argv) > 1 else "", {}
    if os.path.exists(INDEX):
        with open(INDEX) as source:
            found = json.load(source)
    families = all_families()
    for name, module, variant in families:
        if not name.startswith(only):
            continue
        started = time.time()
        try:
            found[name] = record(name, module, variant)
        except Exception:
            print("FAILED", name, "\n".join(traceback.format_exc().strip().splitlines()[-12:]))
        if time.time() - started > 4:
            print("slow:", name, "%.1f s" % (time.time() - started))
    known = {name for name, _, _ in families}
    lines = [json.dumps(k) + ":" + json.dumps(v, separators=(",", ":")) for k, v in sorted(found.items()) if k in known]
    with open(INDEX, "w") as out:
        out.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
