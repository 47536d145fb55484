"""The model families of tests/programs in inference form: run here, and as ONNX in ONNX Runtime."""

import os
import sys

import numpy as np

import millstream.fluid as fluid
from millstream import onnx as ms_onnx
from millstream.ir import walk

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [p for p in (os.path.join(TESTS, "programs"), os.path.join(TESTS, "oracle"), HERE) if p not in sys.path]

from families import Rounds, all_families, set_initial  # noqa: E402
from golden import lengths_of, offsets, session  # noqa: E402
from program_model import Built, one_step_feed  # noqa: E402


def sayable(program, feeds, fetches):
    """(the fetches without what ONNX refuses, but its inputs instead; the refused operator types: metrics, samplers)."""
    block = program.global_block()
    lost = {id(op): op for op, _ in ms_onnx.refusals(program, feeds, fetches)}
    gone, outs = set(), []
    for op in walk.needed_ops(block, fetches):
        if id(op) in lost or gone.intersection(op.input_arg_names):
            if id(op) in lost:
                outs += [n for n in op.input_arg_names if n not in gone and block.var(n).op is not None]
            gone.update(op.output_arg_names)
    kept = [n for n in fetches if n not in gone]
    kept += [n for n in outs if n not in gone and not block.var(n).persistable]
    return list(dict.fromkeys(kept)), sorted({op.type for op in lost.values()})


class Inference:
    """One inference Program of a family: what is fed and fetched, and its parameters in a Scope."""

    def __init__(self, program, feed, fetches, scope):
        self.feed, self.scope = feed, scope
        self.fetches, self.refused = sayable(program, list(feed), fetches)
        self.asked = list(fetches)
        self.program = walk.prune(program, [], self.fetches) if self.fetches else program
        read = {n for op in self.program.global_block().ops for n in walk.reads_of(op)}
        self.feeds = [n for n in feed if n in read]

    def run(self):
        """[(array, lengths)] from millstream's executor."""
        exe = fluid.Executor(fluid.CPUPlace())
        with fluid.scope_guard(self.scope):
            feed = {k: v for k, v in one_step_feed(fluid, self.feed).items() if k in self.feeds}
            found = exe.run(self.program, feed=feed, fetch_list=self.fetches, return_numpy=False)
        return [(np.array(t), [list(level) for level in t.recursive_sequence_lengths()]) for t in found]

    def onnx_feed(self):
        given = {}
        for name in self.feeds:
            value = self.feed[name]
            array, lengths = value if isinstance(value, tuple) else (value, [])
            given[name] = np.ascontiguousarray(array)
            for k, level in enumerate(lengths):
                given[f"{name}.lod{k}"] = offsets(level)
        return given

    def export(self, **kwargs):
        return ms_onnx.export(self.program, self.feeds, self.fetches, self.scope, **kwargs)

    def run_onnx(self, model):
        """[(array, lengths)] from ONNX Runtime."""
        ran = session(model)
        taken = {i.name for i in ran.get_inputs()}
        names = [o.name for o in ran.get_outputs()]
        found = ran.run(None, {k: v for k, v in self.onnx_feed().items() if k in taken})
        return self.grouped(names, found)

    def run_imported(self, model):
        """[(array, lengths)] from the Program that the ONNX model is read as."""
        read = ms_onnx.load(model.SerializeToString())
        scope = fluid.Scope()
        with fluid.scope_guard(scope):
            read.initialize(scope)
            given = self.onnx_feed()
            feed = {n: given[n] for n in read.feed_names}
            ran = fluid.Executor(fluid.CPUPlace()).run(read.program, feed=feed, fetch_list=read.fetch_vars)
        return self.grouped([o.name for o in model.graph.output], ran)

    def grouped(self, names, arrays):
        out, at = [], 0
        for fetch in self.fetches:
            array = np.asarray(arrays[at])
            at += 1
            levels = []
            while at < len(names) and names[at].startswith(fetch + ".lod"):
                levels.append(np.asarray(arrays[at]))
                at += 1
            out.append((array, lengths_of(levels)))
        return out


def leaves(program, given):
    """(program, feed, fetches) of a net among several: what it computes and nobody reads; missing inputs are drawn."""
    block = program.global_block()
    rng = np.random.RandomState(5)
    feed = {}
    for var in block.vars.values():
        if var.is_data:
            drawn = rng.uniform(-1, 1, [d if d > 0 else 4 for d in var.shape]).astype("float32")
            feed[var.name] = given.get(var.name, drawn)
    known = {*feed, *(n for n, v in block.vars.items() if v.persistable)}
    read, made = set(), []
    for op in block.ops:
        if known.issuperset(op.input_arg_names):  # a penalty is computed from gradients, which a test program lacks
            known.update(op.output_arg_names)
            read.update(op.input_arg_names)
            made += [n for n in op.output_arg_names[:1] if not block.var(n).persistable]
    return program, feed, [n for n in made if n not in read]


def inference_of(module, variant):
    """Every inference Program of a family (its forward pass, and its test Program where it has one)."""
    built = Built(fluid, module, variant, train=False)
    model = built.model
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        fluid.Executor(fluid.CPUPlace()).run(built.startup)
        set_initial(fluid, scope, built.startup)
    found = []
    if isinstance(model, Rounds):
        for kind, program in sorted(model.programs.items()):
            found.append((kind, Inference(*leaves(program.clone(for_test=True), model.feeds[0]), scope)))
        if model.test is not None:
            program, feed, names = model.test
            found.append(("test", Inference(program, feed, names, scope)))
        return found
    fetches = [v.name for v in model.fetch] or [model.loss.name]
    found.append(("forward", Inference(built.main.clone(for_test=True), model.feeds[0], fetches, scope)))
    if model.test is not None:
        program, feed, outs = model.test
        found.append(("test", Inference(program, feed, [v.name for v in outs], scope)))
    return found


def every_inference():
    for name, module, variant in all_families():
        for kind, one in inference_of(module, variant):
            yield f"{name}:{kind}", one


def compare(want, got, tolerance=1e-4):
    for (a, la), (b, lb) in zip(want, got):
        assert tuple(a.shape) == tuple(b.shape) or a.size == b.size == 0, (a.shape, b.shape)
        assert la == lb, (la, lb)
        if a.dtype.kind == "f":
            np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(a).max(initial=0)) / 10))
        else:
            np.testing.assert_array_equal(b, a)
