"""Run by an interpreter with PaddlePaddle 1.8.5: load folders millstream saved, write what they compute.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> both_ways.py <program id> <folder with the saved forms> <result.npz>
    ... both_ways.py dygraph:<program id> <path without .pdparams> <result.npz>
"""

import os
import sys

import numpy as np
import paddle.fluid as fluid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from dygraph_model import load_dygraph_states  # noqa: E402
from saved_files import FORMS, infer  # noqa: E402


def main(name, root, target):
    arrays = {}
    if name.startswith("dygraph:"):
        np.savez(target, **load_dygraph_states(fluid, root))
        return
    for form in FORMS:
        arrays[form], lens = infer(fluid, name, root, form)
        arrays.update(("%s.lod%d" % (form, level), np.array(values, "int64")) for level, values in enumerate(lens))
    np.savez(target, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:4])
