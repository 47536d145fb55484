"""The one-operator cases recorded from 1.8.5, written as ONNX and run in ONNX Runtime."""

import importlib.util
import itertools
import os

import numpy as np

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.errors import MillstreamError, NotSupportedError

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(os.path.dirname(HERE), "golden")
_spec = importlib.util.spec_from_file_location("golden_check_onnx", os.path.join(GOLDEN, "check.py"))
CHECK = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(CHECK)


def offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def session(model):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def lengths_of(lod):
    return [[int(b - a) for a, b in itertools.pairwise(level)] for level in lod]


def _inputs(case, arrays):
    """(feeds of the Program, parameters, ONNX feed)."""
    feeds, values, given = [], {}, {}
    for v in case["feeds"]:
        array = arrays[v["key"]]
        if v.get("persistable"):
            values[v["name"]] = array
            continue
        feeds.append(v["name"])
        given[v["name"]] = np.ascontiguousarray(array)
        for k, level in enumerate(v.get("lod") or []):
            given[f"{v['name']}.lod{k}"] = offsets(level)
    return feeds, values, given


def run_case(case, arrays, check=True):
    """None when the ONNX model gives the recorded values, ("refused" | "engine" | "wrong", why) otherwise."""
    if any(v.get("type", "LOD_TENSOR") != "LOD_TENSOR" for v in [*case["feeds"], *case["fetch"]]):
        return "skipped", "rows or arrays come in or go out"
    program, _, _ = CHECK.build(fluid, dict(case, grad=None), {})
    feeds, values, given = _inputs(case, arrays)
    fetches = [o["name"] for o in case["fetch"] if o["name"] in wanted(case)]
    if not fetches:
        return "skipped", "nothing to compare"
    try:
        model = ms_onnx.export(program, feeds, fetches, values)
    except NotSupportedError as refused:
        return "refused", str(refused)
    if check:
        import onnx

        onnx.checker.check_model(model, full_check=True)
    try:
        ran = session(model)
    except Exception as error:
        return "engine", str(error)
    taken = {i.name for i in ran.get_inputs()}
    names = [o.name for o in ran.get_outputs()]
    try:
        found = dict(zip(names, ran.run(None, {k: v for k, v in given.items() if k in taken})))
    except Exception as error:
        return "failed", str(error)
    renamed = iter(names)
    problems = []
    for o in (o for o in case["fetch"] if o["name"] in fetches):
        name = next(renamed)
        lod = []
        for k in range(len(names)):
            if f"{o['name']}.lod{k}" in found:
                lod.append(next(renamed))
        got = found[name]
        why = CHECK.diff(got, arrays[o["key"]], max(o.get("rtol", 1e-4), 1e-4), max(o.get("atol", 1e-5), 1e-5))
        if why is None and lengths_of([found[n] for n in lod]) != CHECK.mesh(o.get("lod")):
            why = f"LoD {lengths_of([found[n] for n in lod])}, expected {CHECK.mesh(o.get('lod'))}"
        if why is not None:
            problems.append(f"{o['name']}: {why}")
    return ("wrong", "; ".join(problems)) if problems else None


def wanted(case):
    """Outputs that carry results: intermediate ones (scratch of the gradient) are not exported."""
    from millstream.ops import REGISTRY

    op = case["ops"][case.get("main", 0)]
    slots = REGISTRY.get(op["type"]).out_slots
    scratch = {n for s, names in op["outputs"].items() if s in slots and slots[s].intermediate for n in names}
    return {o["name"] for o in case["fetch"]} - scratch


def run_file(path):
    """{case id: result} of one operator's file."""
    document, arrays = CHECK.load_op(path)
    results = {}
    for case in document["cases"]:
        try:
            results[case["id"]] = run_case(case, arrays)
        except MillstreamError as error:
            results[case["id"]] = ("error", f"{type(error).__name__}: {error}")
    return results


def op_files():
    folder = os.path.join(GOLDEN, "cases")
    return {name[:-5]: os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".json")}


def read_back(path):
    """{case id: result} of exporting, importing and running here; as :func:`run_case`."""
    document, arrays = CHECK.load_op(path)
    return {case["id"]: _read_back(case, arrays) for case in document["cases"]}


def _read_back(case, arrays):
    fetches = [o for o in case["fetch"] if o["name"] in wanted(case)]
    if not fetches or any(v.get("type", "LOD_TENSOR") != "LOD_TENSOR" for v in [*case["feeds"], *case["fetch"]]):
        return "skipped", "rows or arrays come in or go out, or nothing to compare"
    program, _, _ = CHECK.build(fluid, dict(case, grad=None), {})
    feeds, values, given = _inputs(case, arrays)
    try:
        model = ms_onnx.export(program, feeds, [o["name"] for o in fetches], values)
        read = ms_onnx.load(model)
    except NotSupportedError as refused:
        return "refused", str(refused)
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        read.initialize(scope)
        feed = {name: given[name] for name in read.feed_names}
        found = fluid.Executor(fluid.CPUPlace()).run(read.program, feed=feed, fetch_list=read.fetch_vars)
    by_name = dict(zip([o.name for o in model.graph.output], found))
    problems = []
    for o in fetches:
        got = next(v for n, v in by_name.items() if n == o["name"] or n.startswith(o["name"] + "_out"))
        why = CHECK.diff(got, arrays[o["key"]], max(o.get("rtol", 1e-4), 1e-4), max(o.get("atol", 1e-5), 1e-5))
        if why is not None:
            problems.append(f"{o['name']}: {why}")
    return ("wrong", "; ".join(problems)) if problems else None
