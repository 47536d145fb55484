"""The LoD of the gradients of cases with sequences, from PaddlePaddle 1.8.5 (Python 3.7) or from millstream.

gradient_lods.py OUT    what 1.8.5 gives for one case of each operator and outcome, as {file: {case: {input: LoD}}}
"""

import collections
import glob
import json
import os
import signal
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import check  # noqa: E402

SECONDS = 20


def gradient_lods(fluid, case, feeds, weights):
    """{input: LoD of its gradient, as lengths} of a case whose inputs and gradients are dense."""
    place = fluid.CPUPlace()
    program, _, grads = check.build(fluid, case, weights)
    scope, feed = fluid.Scope(), {}
    for given in case["feeds"]:
        tensor = check._tensor(fluid, place, feeds[given["name"]]["value"], given.get("lod"))
        if given.get("persistable"):
            held = scope.var(given["name"]).get_tensor()
            held.set(np.array(tensor), place)
            if given.get("lod"):
                held.set_recursive_sequence_lengths(given["lod"])
        else:
            feed[given["name"]] = tensor
    for k, of in enumerate(case["grad"]["of"]):
        feed[f"objw_{k}"] = check._tensor(fluid, place, weights[of["name"]], None)
    names = [n for n, v in grads.items() if v is not None and v.type != check.var_type(fluid, "SELECTED_ROWS")]
    wanted = [grads[n] for n in names]
    found = fluid.Executor(place).run(program, feed=feed, fetch_list=wanted, scope=scope, return_numpy=False)
    return {n: check.mesh(t.recursive_sequence_lengths()) for n, t in zip(names, found)}


def usable(case):
    """One operator with a gradient, dense inputs, a sequence among them."""
    feeds = case["feeds"]
    dense = all(f.get("type", "LOD_TENSOR") == "LOD_TENSOR" for f in feeds)
    return bool(case.get("grad")) and len(case["ops"]) == 1 and dense and any(f.get("lod") for f in feeds)


def _recorded(fluid, path):
    """[(case id, LoDs)] of a file, each case in a process that may die."""
    document, arrays = check.load_op(path)
    for case in filter(usable, document["cases"]):
        read, write = os.pipe()
        if os.fork() == 0:
            signal.alarm(SECONDS)
            feeds, weights = check.case_inputs(case, arrays)
            os.write(write, json.dumps(gradient_lods(fluid, case, feeds, weights)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as source:
            text = source.read()
        os.wait()
        if text:
            yield case["ops"][0]["type"], case["id"], json.loads(text)


def main():
    import paddle.fluid as fluid

    seen, out = set(), collections.OrderedDict()
    for folder in ("cases", os.path.join("fuzzed", "cases")):
        for path in sorted(glob.glob(os.path.join(HERE, folder, "*.json"))):
            for op, case, lods in _recorded(fluid, path):
                outcome = (op,) + tuple((n, bool(lod)) for n, lod in sorted(lods.items()))
                if outcome not in seen:
                    seen.add(outcome)
                    out.setdefault(os.path.join(folder, os.path.basename(path)), {})[case] = lods
    with open(sys.argv[1], "w") as target:
        lines = [json.dumps(k) + ": " + json.dumps(v) for k, v in out.items()]
        target.write("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
