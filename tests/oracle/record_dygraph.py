"""Record imperative programs on PaddlePaddle 1.8.5: recorded/dygraph/<id>.npz and recorded/dygraph.json.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> record_dygraph.py [id prefix]
"""

import json
import os
import sys
import traceback

import numpy as np
import paddle.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from dygraph_model import dygraph_programs, run_dygraph, save_dygraph_states  # noqa: E402


def main():
    only, found = sys.argv[1] if len(sys.argv) > 1 else "", {}
    folder = os.path.join(HERE, "recorded", "dygraph")
    if not os.path.isdir(folder):
        os.makedirs(folder)
    for name, module, variant in dygraph_programs():
        if not name.startswith(only):
            continue
        try:
            facts, arrays = run_dygraph(fluid, module, variant)
        except Exception:
            print("FAILED", name, "\n".join(traceback.format_exc().strip().splitlines()[-12:]))
            continue
        found[name] = facts
        assert np.isfinite(arrays["loss"]).all(), arrays["loss"]
        np.savez_compressed(os.path.join(folder, name + ".npz"), **arrays)
        if name in ("nets-lenet", "nets-text", "nets-attention"):
            path = os.path.join(HERE, "recorded", "saved", "dygraph", name)
            states = save_dygraph_states(fluid, module, variant, path)
            np.savez_compressed(path + ".npz", **states)
        print("%-32s %.5f %.5f" % (name, arrays["loss"][0], arrays["loss"][-1]))
    if not only:
        with open(os.path.join(HERE, "recorded", "dygraph.json"), "w") as out:
            out.write(
                "{\n"
                + ",\n".join(json.dumps(k) + ":" + json.dumps(v, separators=(",", ":")) for k, v in sorted(found.items()))
                + "\n}\n"
            )


if __name__ == "__main__":
    main()
