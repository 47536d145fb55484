"""The model families of tests/programs as saved inference models, optimised, saved again and run."""

import os

import numpy as np
from families import Rounds, load, set_initial
from program_model import Built, one_step_feed

import millstream.fluid as fluid
from millstream import passes
from millstream.ir import walk
from millstream.passes import pipelines


def ends(built):
    """(Program, feed, names to fetch) of what one would serve of a family."""
    model = built.model
    if model.test is not None:
        program, feed, fetches = model.test
        block = program.global_block()
        return program, feed, [block.var(v) if isinstance(v, str) else v for v in fetches]
    if isinstance(model, Rounds):
        _, program = sorted(model.programs.items())[-1]
        return program, model.feeds[0], [first_loss(program)]
    fetches = list(model.fetch) or [model.loss]
    return built.main, model.feeds[0], fetches


def first_loss(program):
    """The first mean of a Program: a loss before any gradient."""
    block = program.global_block()
    loss = next(i for i, op in enumerate(block.ops) if "mean" in op.type and i > 3)
    return block.var(block.ops[loss].output_arg_names[0])


def save(folder, module, variant):
    """Save what one would serve of a family with the initial values of its recording; (feed, LoD feeds)."""
    built = Built(fluid, module, variant, train=False)
    program, feed, fetches = ends(built)
    exe = fluid.Executor()
    exe.run(built.startup)
    set_initial(fluid, fluid.global_scope(), built.startup)
    needed = program.clone(for_test=True)._prune_with_input(list(feed), [v.name for v in fetches])
    read = {n for b in needed.blocks for op in b.ops for n in op.input_arg_names}
    feed = {name: value for name, value in feed.items() if name in read}
    fluid.io.save_inference_model(folder, list(feed), list(fetches), exe, main_program=program.clone(for_test=True))
    return one_step_feed(fluid, feed)


def run(program, feed, fetches, run_passes=()):
    exe = fluid.Executor()
    exe.passes = run_passes
    return [(np.array(t), t.lod()) for t in exe.run(program, feed=feed, fetch_list=fetches, return_numpy=False)]


def optimised(folder, names=pipelines.INFER, check=True):
    """(Work, feeds, fetches, Program as it was) of a saved model, in the current scope."""
    program, feeds, fetches = fluid.io.load_inference_model(folder, fluid.Executor())
    scope = fluid.global_scope()

    def value(name):
        var = scope.find_var(name)
        return None if var is None else var.load()[0]

    work = passes.optimize(program, feeds, [v.name for v in fetches], value, names, check=check)
    for name, tensor in work.values.items():
        scope.var(name).store(tensor, ())
    return work, feeds, fetches, program


def compare(folder, feed, names=pipelines.INFER, rtol=1e-4, atol=1e-5):
    """The Work of a saved model, whose optimised and reloaded form gives what the model gives."""
    with fluid.scope_guard(fluid.Scope()):
        work, feeds, fetches, program = optimised(folder, names)
        want = run(program, feed, fetches)
        again = os.path.join(folder, "optimised")
        copy = work.program.clone()  # saving appends operators
        targets = [copy.global_block().var(v.name) for v in fetches]
        read = {name for op in copy.global_block().ops for name in walk.reads_of(op)}
        feeds = [name for name in feeds if name in read]  # counts that cvm only needs for its gradient, say, are gone
        fluid.io.save_inference_model(again, feeds, targets, fluid.Executor(), main_program=copy)
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(again, fluid.Executor())
        got = run(program, {name: feed[name] for name in feeds}, fetches, pipelines.PLAN)
    for (a, a_lod), (b, b_lod), var in zip(want, got, fetches):
        assert a.dtype == b.dtype and a.shape == b.shape and a_lod == b_lod, var.name
        np.testing.assert_allclose(b, a, rtol=rtol, atol=atol * max(1.0, float(np.abs(a).max(initial=0))), err_msg=var.name)
    return work


def family(name):
    """(module, variant) of an id such as "classify/vgg" or "text/sentiment-gru"."""
    path, _, variant = name.partition("-")
    group, file = path.split("/")
    return load(group, file), variant or None


def size(program):
    """Number of operators in all Blocks, feed and fetch left out."""
    return sum(op.type not in ("feed", "fetch") for block in program.blocks for op in block.ops)
