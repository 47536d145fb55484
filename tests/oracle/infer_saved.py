"""Run by an interpreter with PaddlePaddle 1.8.5: run saved inference models on stored inputs, write what they compute.

OMP_NUM_THREADS=1 <python with paddlepaddle 1.8.5> infer_saved.py <folder>

Every directory in the folder holds a model and inputs.npz: arrays by name, `<name>.lengths<level>` beside those with a LoD.
It receives outputs.npz: out<k> and out<k>.lengths<level>.
"""

import os
import sys

import numpy as np
import paddle.fluid as fluid


def run(folder):
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(folder, exe)
        feed = {}
        with np.load(os.path.join(folder, "inputs.npz"), allow_pickle=False) as given:
            for name in feeds:
                lengths, level = [], 0
                while "%s.lengths%d" % (name, level) in given:
                    lengths.append(given["%s.lengths%d" % (name, level)].tolist())
                    level += 1
                feed[name] = fluid.create_lod_tensor(given[name], lengths, fluid.CPUPlace()) if lengths else given[name]
        found = exe.run(program, feed=feed, fetch_list=fetches, return_numpy=False)
    arrays = {}
    for k, tensor in enumerate(found):
        arrays["out%d" % k] = np.array(tensor)
        for level, lengths in enumerate(tensor.recursive_sequence_lengths()):
            arrays["out%d.lengths%d" % (k, level)] = np.array(lengths, "int64")
    np.savez(os.path.join(folder, "outputs.npz"), **arrays)


if __name__ == "__main__":
    for name in sorted(os.listdir(sys.argv[1])):
        run(os.path.join(sys.argv[1], name))
