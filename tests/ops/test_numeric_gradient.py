"""Gradients of every differentiable operator against central differences in float64.

The golden cases give the operands. Cases marked `quirk` are left out: there Fluid's gradient is not the derivative.
"""

import argparse
import copy
import glob
import importlib.util
import os

import numpy as np
import pytest

import millstream.fluid as fluid

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
SPEC = importlib.util.spec_from_file_location("golden_check", os.path.join(GOLDEN, "check.py"))
CHECK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(CHECK)
ARGS = argparse.Namespace(timeout=0, infer=False)
STEP, PICKS = 1e-5, 4
# Their recorded cases hide, draw or move something; test_numeric_gradient_programs.py has Programs where they are smooth.
LEFT_OUT = {
    "dropout": "its mask hides some inputs, and p = 1 all of them",
    "sigmoid_focal_loss": "its counts are integers of the operands",
    "center_loss": "moves its centers while it runs",
    "filter_by_instag": "chooses rows",
    "sample_logits": "samples",
    "batch_norm": "with global statistics kept in other inputs the recorded gradient ignores them",
    "lstm": "the gradient into Cell is ignored, as in Fluid",
    "lstmp": "the gradient into Cell is ignored, as in Fluid",
}


def as_float64(case, feeds, weights):
    """The case with float64 operands, or None where an operand has another float type."""
    case = copy.deepcopy(case)
    for v in (*case["feeds"], *case.get("vars", [])):
        if v.get("dtype") == "float32":
            v["dtype"] = "float64"
    for op in case["ops"]:
        for name, value in op["attrs"].items():
            if name in ("dtype", "out_dtype", "in_dtype") and value == 5:
                op["attrs"][name] = 6
    feeds = {n: {k: a.astype("float64") if a.dtype == np.float32 else a for k, a in d.items()} for n, d in feeds.items()}
    return case, feeds, {n: w.astype("float64") if w.dtype == np.float32 else w for n, w in weights.items()}


class Case:
    """One operator's objective as a function of its feeds."""

    def __init__(self, case, feeds, weights):
        self.case, self.feeds = case, feeds
        self.program, _, grads = CHECK.build(fluid, case, weights)
        self.grads = {n: g.name for n, g in grads.items() if g is not None and g.type.name == "LOD_TENSOR"}
        self.objective = "objr_0" if len(case["grad"]["of"]) == 1 else "obj"
        self.fixed = {f"objw_{k}": weights[o["name"]] for k, o in enumerate(case["grad"]["of"])}
        self.exe, self.place = fluid.Executor(), fluid.CPUPlace()

    def run(self, feeds, names):
        scope = fluid.Scope()
        feed = dict(self.fixed)
        for v in self.case["feeds"]:
            value = feeds[v["name"]]["value"]
            if v.get("type") == "SELECTED_ROWS":
                return None
            tensor = CHECK._tensor(fluid, self.place, value, v.get("lod"))
            if v.get("persistable"):
                held = scope.var(v["name"]).get_tensor()
                held.set(value, self.place)
                if v.get("lod"):
                    held.set_recursive_sequence_lengths(CHECK.mesh(v["lod"]))
            else:
                feed[v["name"]] = tensor
        found = self.exe.run(self.program, feed=feed, fetch_list=names, scope=scope, return_numpy=False)
        return [np.array(t) for t in found]

    def slope(self, name, index):
        """Central difference of the objective; None at a kink, or where rounding would swamp it."""
        values = []
        for move in (STEP, 0.0, -STEP):
            moved = {n: dict(d) for n, d in self.feeds.items()}
            moved[name]["value"] = moved[name]["value"].copy()
            moved[name]["value"][index] += move
            values.append(self.run(moved, [self.objective])[0].item())
        right, left = (values[0] - values[1]) / STEP, (values[1] - values[2]) / STEP
        slope = (right + left) / 2
        size = max(1.0, abs(slope))
        smooth = abs(right - left) < 1e-2 * size and max(map(abs, values)) * 1e-15 / STEP < 1e-5 * size
        return slope if smooth else None


def operators(left_out=tuple(LEFT_OUT)):
    for path in sorted(glob.glob(os.path.join(GOLDEN, "cases", "*.json"))):
        document, arrays = CHECK.load_op(path)
        cases = [c for c in document["cases"] if c.get("grad") and not c.get("quirk")]
        if cases and document["op"] not in left_out:
            yield pytest.param(cases, arrays, id=document["op"])


@pytest.mark.parametrize("cases, arrays", operators())
def test_gradient_is_the_slope(cases, arrays):
    rng = np.random.RandomState(0)
    compared, wrong = 0, []
    for original in cases[:2]:
        case = Case(*as_float64(original, *CHECK.case_inputs(original, arrays)))
        got = case.run(case.feeds, list(case.grads.values())) if case.grads else None
        if got is None:
            continue
        for (name, _), gradient in zip(case.grads.items(), got):
            value = case.feeds[name]["value"]
            if value.dtype != np.float64 or not value.size:
                continue
            for flat in rng.choice(value.size, min(PICKS, value.size), replace=False):
                index = np.unravel_index(flat, value.shape)
                slope = case.slope(name, index)
                if slope is None:
                    continue
                if abs(slope - gradient.reshape(value.shape)[index]) > 1e-4 * max(1.0, abs(slope)):
                    wrong.append(f"{original['id']} {name}{list(map(int, index))}: {gradient[index]:.6g}, slope {slope:.6g}")
                compared += 1
    assert not wrong, "\n".join(wrong)
