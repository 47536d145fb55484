"""Gradients of gradients of every differentiable operator, in Programs and in eager mode, against the difference quotient of
first ones in float64; or a refusal: never a number without what goes through a statistic or a kernel's own loops.

The golden cases give the operands, as in test_numeric_gradient.py.
"""

import numpy as np
import pytest
from test_numeric_gradient import CHECK, Case, as_float64, operators

import millstream.fluid as fluid
import millstream.fluid.layers as L
from millstream.errors import NotSupportedError
from millstream.ir import mode

STEP = 1e-5
LEFT_OUT = ("dropout", "filter_by_instag", "sample_logits", "sigmoid_focal_loss")  # see test_numeric_gradient.py
REFUSED = {"gru", "linear_chain_crf", "lstm", "lstmp", "psroi_pool", "roi_align", "warpctc", "yolov3_loss"}
IN_PROGRAMS_ONLY = {"reorder_lod_tensor_by_rank", "shrink_rnn_memory"}


def objective(pairs):
    """Quadratic in the outputs, so that the gradients that come to the operator depend on its inputs, too."""
    terms = [term for out, w in pairs for term in (L.reduce_sum(out * w), L.reduce_sum(L.square(out) * w))]
    return L.sums(terms)


class InProgram(Case):
    """A scalar of the first gradients, and its gradients, as functions of the feeds."""

    def __init__(self, case, feeds, weights, probes):
        self.case, self.feeds, self.place, self.exe = case, feeds, fluid.CPUPlace(), fluid.Executor()
        self.program, self.fixed = fluid.Program(), {}
        with fluid.program_guard(self.program, fluid.Program()), fluid.unique_name.guard():
            block = self.program.global_block()
            known = {v["name"]: CHECK._create_var(fluid, block, v, True) for v in case["feeds"]}
            known.update({v["name"]: CHECK._create_var(fluid, block, v, False) for v in case.get("vars", [])})
            for op in case["ops"]:
                slots = [{s: [known[n] for n in names] for s, names in op[k].items()} for k in ("inputs", "outputs")]
                block.append_op(type=op["type"], inputs=slots[0], outputs=slots[1], attrs=dict(op["attrs"]))
            outs = [known[o["name"]] for o in case["grad"]["of"]]
            pairs = [(v, self._fixed(f"w_{v.name}", weights[v.name], v.shape)) for v in outs]
            wrt = [known[n] for n in probes]
            first = [(v, g) for v, g in zip(wrt, fluid.gradients(objective(pairs), wrt)) if g is not None]
            probe = {v.name: self._fixed(f"p_{v.name}", probes[v.name], v.shape) for v, _ in first}
            self.scalar = L.sums([L.reduce_sum(g * probe[v.name]) for v, g in first])
            self.second = fluid.gradients(self.scalar, wrt) or [None] * len(wrt)

    def _fixed(self, name, value, shape):
        self.fixed[name] = value
        var = self.program.global_block().create_var(name=name, shape=list(shape), dtype=str(value.dtype))
        var.stop_gradient = True
        return var

    def at(self, feeds):
        return self.run(feeds, [self.scalar])[0].item()

    def gradients(self):
        made = [g for g in self.second if g is not None]
        got = iter(self.run(self.feeds, made) if made else ())
        return [None if g is None else next(got) for g in self.second]


class Eager:
    """The same in eager mode."""

    def __init__(self, case, feeds, weights, probes):
        self.case, self.feeds, self.weights, self.probes = case, feeds, weights, probes

    def _first(self, feeds, create_graph):
        to_variable, tracer, known = fluid.dygraph.to_variable, mode.tracer(), {}
        for v in self.case["feeds"]:
            known[v["name"]] = to_variable(CHECK._tensor(fluid, fluid.CPUPlace(), feeds[v["name"]]["value"], v.get("lod")))
            known[v["name"]].stop_gradient = v["name"] not in self.probes
        for v in self.case.get("vars", []):
            known.setdefault(v["name"], tracer.new_variable(v["name"], v.get("dtype") or "float64"))
        for op in self.case["ops"]:
            slots = [{s: [known[n] for n in names] for s, names in op[k].items()} for k in ("inputs", "outputs")]
            for var in (v for variables in slots[1].values() for v in variables):
                var.stop_gradient = False
            tracer.trace_op(op["type"], *slots, dict(op["attrs"]))
        pairs = [(known[o["name"]], to_variable(self.weights[o["name"]])) for o in self.case["grad"]["of"]]
        wrt = [known[n] for n in self.probes]
        first = fluid.dygraph.grad(objective(pairs), wrt, create_graph=create_graph, allow_unused=True)
        found = [(v, g, p.reshape(g.shape)) for v, g, p in zip(wrt, first, self.probes.values()) if g is not None]
        return wrt, L.sums([L.reduce_sum(g * to_variable(p)) for _, g, p in found])

    def at(self, feeds):
        with fluid.dygraph.guard():
            return self._first(feeds, False)[1].numpy().item()

    def gradients(self):
        with fluid.dygraph.guard():
            wrt, scalar = self._first(self.feeds, True)
            np.testing.assert_allclose(scalar.numpy(), self.at(self.feeds), rtol=1e-7, atol=1e-9)
            if scalar.stop_gradient:
                return [None] * len(wrt)
            found = fluid.dygraph.grad(scalar, wrt, allow_unused=True)
            return [None if g is None else g.numpy() for g in found]


def wrong(kind, original, arrays):
    """What differs, one line an operand."""
    rng = np.random.RandomState(0)
    case, feeds, weights = as_float64(original, *CHECK.case_inputs(original, arrays))
    if any(v.get("type") == "SELECTED_ROWS" for v in case["feeds"]):
        return []
    names = [x["name"] for x in case["grad"]["wrt"] if not x.get("none") and x.get("type") != "SELECTED_ROWS"]
    names = [n for n in names if feeds[n]["value"].dtype == np.float64 and feeds[n]["value"].size]
    probes = {n: rng.uniform(-1, 1, feeds[n]["value"].shape) for n in names}
    if not probes:
        return []
    made, found = kind(case, feeds, weights, probes), []
    got, base = made.gradients(), made.at(feeds)
    for name, gradient in zip(probes, got):
        direction = rng.uniform(-1, 1, probes[name].shape)
        sides = []
        for step in (STEP, -STEP):
            moved = {n: dict(d) for n, d in feeds.items()}
            moved[name]["value"] = moved[name]["value"] + step * direction
            sides.append((made.at(moved) - base) / step)
        quotient = sum(sides) / 2
        value = 0.0 if gradient is None else float((gradient.reshape(direction.shape) * direction).sum())
        smooth = abs(sides[0] - sides[1]) < 1e-2 * max(1, abs(quotient))
        if smooth and not abs(quotient - value) <= 2e-4 * max(1.0, abs(quotient)):
            found.append(f"{original['id']} {name}: {value:.6g}, difference quotient {quotient:.6g}")
    return found


@pytest.mark.parametrize("kind", (InProgram, Eager))
@pytest.mark.parametrize("cases, arrays", list(operators(LEFT_OUT)))
def test_gradient_of_a_gradient(kind, cases, arrays):
    type = cases[0]["ops"][cases[0].get("main", 0)]["type"]
    if kind is Eager and type in IN_PROGRAMS_ONLY:
        pytest.skip("no eager form")
    for original in cases[:2]:
        if type in REFUSED:
            with pytest.raises(NotSupportedError, match="gradient of its gradient is not defined"):
                wrong(kind, original, arrays)
        else:
            assert not (found := wrong(kind, original, arrays)), "\n".join(found)
