"""The model families of this folder: where they are, how they start and how they are run. Python 3.7 and 3.11."""

import importlib.util
import os
import zlib

import numpy as np

from program_model import Built, Model, one_step_feed, op_types, run_after, run_steps

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 5
GROUPS = ("classify", "dense", "detect", "gan", "ranking", "text")
RANDOM = ("uniform_random", "gaussian_random", "truncated_gaussian_random")


class Rounds(Model):
    """A family of several Programs that share parameters by name and one startup Program.

    programs: {name: Program}; turn(exe, feed) -> list of floats, the losses of one turn of them all.
    """

    def __init__(self, programs, turn, feeds, test=None):
        Model.__init__(self, None, feeds, test=test)
        self.programs, self.turn = programs, turn


def load(group, name):
    path = os.path.join(HERE, group, name + ".py")
    spec = importlib.util.spec_from_file_location("family_%s_%s" % (group, name), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def all_families():
    """[(id, module, variant)]: every file of every group; one with VARIANTS gives one program for each."""
    found = []
    for group in GROUPS:
        for file in sorted(os.listdir(os.path.join(HERE, group))):
            if not file.endswith(".py"):
                continue
            module = load(group, file[:-3])
            for variant in getattr(module, "VARIANTS", (None,)):
                name = "%s/%s" % (group, file[:-3])
                found.append((name if variant is None else name + "-" + variant, module, variant))
    return found


def drawn(name, shape):
    """A Glorot uniform draw that depends on nothing but the variable's name and shape."""
    field = int(np.prod(shape[2:])) if len(shape) > 2 else 1
    into, out = (shape[1], shape[0]) if len(shape) > 2 else (shape[0], shape[-1])
    reach = np.sqrt(6.0 / ((into + out) * field))
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(-reach, reach, shape).astype("float32")


def set_initial(fluid, scope, startup):
    """What the startup Program drew at random is drawn again from names. The checksum of all it initialised."""
    total = 0
    for op in sorted(startup.global_block().ops, key=lambda op: op.output_arg_names[0]):
        name = op.output_arg_names[0]
        tensor = scope.find_var(name).get_tensor()
        if op.type in RANDOM:
            tensor.set(drawn(name, np.array(tensor).shape), fluid.CPUPlace())
        total = zlib.crc32(np.ascontiguousarray(np.array(tensor)).tobytes(), total)
    return total


class Result(object):
    """losses [steps, losses a step], arrays {key: fetched}, lods {key: lengths}, facts: what is compared exactly."""

    def __init__(self, losses, arrays, lods, facts):
        self.losses, self.arrays, self.lods, self.facts = losses, arrays, lods, facts


def run_rounds(fluid, exe, built):
    model = built.model
    return [model.turn(exe, one_step_feed(fluid, feed)) for feed in model.feeds], {}, {}


def run_family(fluid, module, variant):
    built = Built(fluid, module, variant)
    model = built.model
    several = isinstance(model, Rounds)
    forward = {k: op_types(p) for k, p in sorted(model.programs.items())} if several else built.forward_ops
    programs = list(model.programs.values()) if several else [built.main]
    parameters = {p.name: list(p.shape) for program in programs for p in program.all_parameters()}
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(built.startup)
        initial = set_initial(fluid, scope, built.startup)
        losses, arrays, lods = (run_rounds if several else run_steps)(fluid, exe, built)
        arrays.update(run_after(fluid, exe, built))
    facts = {"parameters": parameters, "forward_ops": forward, "initial": initial}
    return Result(np.array(losses, "float64").reshape(len(model.feeds), -1), arrays, lods, facts)
