"""Ask PaddlePaddle 1.8.5 (Python 3.7, CPU) for the results of one-operator cases, in the format of tests/golden.

    record.py again                     record the cases of cases/ anew, from the inputs that stand there
    record.py more OUT OPS_JSON N [op]  N variations (vary.py) of each case here and in ../cases go to OUT/<family>.json

Each case runs twice, once with memory that was filled with rubbish before: results that depend on it, and cases that
1.8.5 refuses or does not survive, are left out. OPS_JSON lists operators with slots and attributes.
"""

import collections
import copy
import glob
import json
import os
import shutil
import signal
import sys
import tempfile

import numpy as np
from vary import vary

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import check  # noqa: E402

SECONDS = 20


def rubbish(fluid, on):
    fluid.core.globals()["FLAGS_init_allocated_mem"] = on


def declare(case, found):
    """Outputs are declared with the types that they have."""
    for var in case.get("vars", []):
        got = found.outs.get(var["name"])
        if var.get("dtype") and got is not None and got[0].size:
            var["dtype"] = str(got[0].dtype)


def run(fluid, case, values, weights=None):
    """(case, weights of the objective, results, results on dirty memory)."""
    case = copy.deepcopy(case)
    grad, weights = case.pop("grad", None), weights or {}
    rubbish(fluid, False)
    declare(case, check.execute(fluid, case, values, {}))
    if grad:
        plain = check.execute(fluid, case, values, {})
        draw = np.random.RandomState(7)
        for of in grad["of"]:
            out = plain.outs[of["name"]][0]
            if out.dtype.kind != "f":
                raise ValueError("the objective is not a float")
            if weights.get(of["name"]) is None or weights[of["name"]].shape != out.shape:
                weights[of["name"]] = draw.uniform(-1, 1, size=out.shape).astype(out.dtype)
        case["grad"] = grad
    first = check.execute(fluid, case, values, weights)
    rubbish(fluid, True)
    return case, weights, first, check.execute(fluid, case, values, weights)


def write_down(case, values, weights, found):
    """Fill in keys, shapes and LoDs; returns {key: array}."""
    arrays, tag = {}, case["id"]

    def keep(entry, kind, array, rows=None):
        entry["key"] = "%s.%s.%s" % (tag, kind, entry["name"])  # noqa: UP031
        arrays[entry["key"]] = array
        if rows is not None:
            arrays[entry["key"] + ".rows"] = np.asarray(rows, "int64")

    for feed in case["feeds"]:
        keep(feed, "in", values[feed["name"]]["value"], values[feed["name"]].get("rows"))
    for out in case["fetch"]:
        if out.get("type") == "SELECTED_ROWS":
            rows, out["height"], array = found.srows[out["name"]]
            keep(out, "out", array, rows)
            continue
        array, lod = found.outs[out["name"]]
        keep(out, "out", array)
        out.update(dtype=str(array.dtype), shape=list(array.shape), infer=list(found.infer[out["name"]]))
        out.pop("lod", None)
        if lod:
            out["lod"] = lod
    for of in case.get("grad", {}).get("of", []):
        keep(of, "w", weights[of["name"]])
    for wrt in case.get("grad", {}).get("wrt", []):
        for old in ("none", "type", "height", "key"):
            wrt.pop(old, None)
        grad = found.grads.get(wrt["name"])
        if grad is None:
            wrt["none"] = True
        elif grad[0] == "dense":
            keep(wrt, "grad", grad[1])
        else:
            wrt.update(type="SELECTED_ROWS", height=grad[2])
            keep(wrt, "grad", grad[3], grad[1])
    return arrays


def ask(fluid, make, folder, first, count):
    """In a child process: cases `first` to `count` to files in `folder`, each as soon as it is there."""
    for i in range(first, count):
        path = os.path.join(folder, str(i))
        open(path + ".begun", "w").close()
        signal.alarm(SECONDS)
        try:
            case, values, *weights = make(i)
            case, weights, found, dirty = run(fluid, case, values, *weights)
            arrays = write_down(case, values, weights, found)
            if not check.compare(case, dirty, arrays):
                np.savez(path + ".npz", **arrays)
                with open(path + ".json", "w") as f:
                    json.dump(case, f)
        except Exception as error:
            print(check.one_line(error), file=sys.stderr)
        signal.alarm(0)


def asked(fluid, make, count):
    """[(case, arrays)] of the cases that hold; a child process that dies costs one case."""
    folder = tempfile.mkdtemp()
    begun = 0
    while begun < count:
        child = os.fork()
        if child == 0:
            try:
                ask(fluid, make, folder, begun, count)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        begun = len(glob.glob(os.path.join(folder, "*.begun")))
    found = []
    for i in range(count):
        path = os.path.join(folder, str(i))
        if os.path.exists(path + ".json"):
            with open(path + ".json") as f:
                found.append((json.load(f), dict(np.load(path + ".npz"))))
    shutil.rmtree(folder)
    return found


def save(path, document, found):
    """`found` [(case, arrays)] as <path>.json and <path>.npz, a case a line."""
    with open(path + ".json", "w") as f:
        head = json.dumps({k: document[k] for k in ("op", "family")})[:-1]
        f.write(head + ', "cases": [\n' + ",\n".join(json.dumps(c) for c, _ in found) + "\n]}\n")
    np.savez_compressed(path + ".npz", **{k: a for _, arrays in found for k, a in arrays.items()})


def again(fluid):
    for path in sorted(glob.glob(os.path.join(HERE, "cases", "*.json"))):
        document, arrays = check.load_op(path)
        cases = document["cases"]

        def stored(i, cases=cases, arrays=arrays):
            return (cases[i], *check.case_inputs(cases[i], arrays))

        found = asked(fluid, stored, len(cases))
        save(path[:-5], document, found)
        print("%s: %d of %d" % (document["family"], len(found), len(cases)))  # noqa: UP031


def bases(only):
    """{family: {operator: [(case, values)]}} of all recorded cases."""
    out = collections.defaultdict(lambda: collections.defaultdict(list))
    for folder in (os.path.join(os.path.dirname(HERE), "cases"), os.path.join(HERE, "cases")):
        for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
            document, arrays = check.load_op(path)
            for case in document["cases"]:
                op = case["ops"][case.get("main", 0)]["type"]
                if not only or op in only:
                    out[document["family"]][op].append((case, check.case_inputs(case, arrays)[0]))
    return out


def more(fluid, folder, ops_json, count, only):
    with open(ops_json) as f:
        specs = json.load(f)["ops"]
    os.makedirs(folder, exist_ok=True)
    for family, operators in bases(only).items():
        found = []
        for op, known in operators.items():

            def varied(i, op=op, known=known):
                case, values = known[i % len(known)]
                case, values = vary(case, values, specs[op], [c for c, _ in known], i)
                case["id"] = "%s_v%d" % (op, i)  # noqa: UP031
                return case, values

            found += asked(fluid, varied, count * len(known))
        save(os.path.join(folder, family), {"op": family, "family": family}, found)
        print("%s: %d" % (family, len(found)))  # noqa: UP031


def main(arguments):
    import paddle.fluid as fluid

    if arguments[:1] == ["again"]:
        again(fluid)
    elif arguments[:1] == ["more"] and len(arguments) >= 4:
        more(fluid, arguments[1], arguments[2], int(arguments[3]), arguments[4:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
