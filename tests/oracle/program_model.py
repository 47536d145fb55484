"""What a program file hands to the recorder and to the replaying test. Runs under Python 3.7 and 3.11."""

import importlib
import zlib

import numpy as np

STEPS = 20


class Model(object):
    """A built forward pass, its data and the call that makes it train.

    loss: Variable of shape [1], or None when nothing is trained.
    feeds: one dict a step, name -> array, or name -> (array, recursive sequence lengths).
    fetch: Variables recorded at the first and the last step.
    train: called after the forward pass stands; appends backward and optimizer.
    compiled: (main Program, scope) -> what is run instead: a CompiledProgram or a ParallelExecutor.
    test: (Program, feed, Variables) run after the last step; after(exe) -> {name: array}, run after that.
    """

    def __init__(self, loss=None, feeds=(), fetch=(), train=None, test=None, after=None, statistics=False, compiled=None):
        self.loss, self.feeds, self.fetch, self.train = loss, list(feeds), list(fetch), train
        self.test, self.after, self.statistics, self.compiled = test, after, statistics, compiled


def repeat(make, steps=STEPS, seed=7):
    """`steps` feeds from make(RandomState)."""
    rng = np.random.RandomState(seed)
    return [make(rng) for _ in range(steps)]


def lengths(rng, count, low=1, high=6):
    return [int(n) for n in rng.randint(low, high, count)]


def ragged_ids(rng, lens, vocabulary):
    """int64 [sum(lens), 1] with its one level of lengths."""
    return rng.randint(0, vocabulary, (sum(lens), 1)).astype("int64"), [list(lens)]


def ragged(rng, lens, width):
    """float32 [sum(lens), width] with its one level of lengths."""
    return rng.uniform(-1, 1, (sum(lens), width)).astype("float32"), [list(lens)]


def one_step_feed(fluid, feed):
    """The feed with (array, lengths) pairs turned into LoDTensors."""
    place = fluid.CPUPlace()
    return {k: fluid.create_lod_tensor(v[0], v[1], place) if isinstance(v, tuple) else v for k, v in feed.items()}


def feeds_checksum(feeds):
    total = 0
    for feed in feeds:
        for name in sorted(feed):
            value = feed[name][0] if isinstance(feed[name], tuple) else feed[name]
            total = zlib.crc32(np.ascontiguousarray(value).tobytes(), total)
    return total


FILES = {
    "vision": ("mnist_mlp", "lenet", "conv_family", "nets_zoo", "evaluate", "detection", "resnet"),
    "text": (
        "word2vec",
        "ctr",
        "sentiment",
        "tagger",
        "seq2seq",
        "beam_search",
        "language_model",
        "recurrent_units",
        "nested_lod",
        "transformer",
        "speech",
    ),
    "training": (
        "fit_a_line",
        "while_sum",
        "branches",
        "lr_schedules",
        "optimizers",
        "averages",
        "clip_regularize",
        "gradients",
        "initializers",
        "data_parallel",
    ),
}


def all_programs():
    """[(id, module, variant)]: a file with VARIANTS gives one program for each."""
    found = []
    for area in sorted(FILES):
        for name in FILES[area]:
            module = importlib.import_module("programs.%s.%s" % (area, name))
            for variant in getattr(module, "VARIANTS", (None,)):
                found.append((name if variant is None else name + "-" + variant, module, variant))
    return found


class Built(object):
    """Programs of one model with the facts compared by name."""

    def __init__(self, fluid, module, variant, train=True):
        self.main, self.startup = fluid.Program(), fluid.Program()
        self.main.random_seed = self.startup.random_seed = 90
        with fluid.unique_name.guard(), fluid.program_guard(self.main, self.startup):
            self.model = module.build(fluid) if variant is None else module.build(fluid, variant)
            self.forward_ops = op_types(self.main)
            if train and self.model.train is not None:
                self.model.train()
        self.all_ops = op_types(self.main)
        self.parameters = sorted(
            [p.name, list(p.shape), str(p.dtype).rsplit(".", 1)[-1]] for p in self.main.all_parameters()
        )
        self.variables = sorted(v.name for v in self.main.list_vars())
        self.persistables = sorted(v.name for v in self.main.list_vars() if v.persistable)


def op_types(program):
    return [[op.type for op in block.ops] for block in program.blocks]


def read_persistables(scope, names):
    """{name: array} of those that hold a tensor."""
    found = {}
    for name in names:
        var = scope.find_var(name)
        if var is None:
            continue
        try:
            tensor = var.get_tensor()
            if tensor._is_initialized():
                found[name] = np.array(tensor)
        except (ValueError, RuntimeError, TypeError, AttributeError):  # a reader, a step scope: no tensor inside
            continue
    return found


def run_steps(fluid, exe, built):
    """Losses of every step, and the fetches of the first and last as {key: array} with their lengths."""
    model, losses, kept, lods = built.model, [], {}, {}
    fetch = ([model.loss] if model.loss is not None else []) + model.fetch
    program = model.compiled(built.main, fluid.global_scope()) if model.compiled else built.main
    for step, feed in enumerate(model.feeds):
        feed = one_step_feed(fluid, feed)
        if isinstance(program, fluid.ParallelExecutor):
            out = program.run(feed=feed, fetch_list=[v.name for v in fetch], return_numpy=False)
        else:
            out = exe.run(program, feed=feed, fetch_list=fetch, return_numpy=False)
        if model.loss is not None:
            losses.append(float(np.array(out[0]).reshape(-1)[0]))
            out = out[1:]
        if step in (0, len(model.feeds) - 1):
            for index, tensor in enumerate(out):
                key = "fetch%d.%d" % (step, index)
                kept[key] = np.array(tensor)
                lods[key] = tensor.recursive_sequence_lengths()
    return losses, kept, lods


def run_after(fluid, exe, built):
    """Outputs of the test program and of the `after` hook as {key: array}."""
    model, kept = built.model, {}
    if model.test is not None:
        program, feed, fetch = model.test
        outs = exe.run(program, feed=one_step_feed(fluid, feed), fetch_list=fetch, return_numpy=False)
        kept.update(("test.%d" % i, np.array(t)) for i, t in enumerate(outs))
    if model.after is not None:
        kept.update(("after." + k, np.array(v)) for k, v in model.after(exe).items())
    return kept
