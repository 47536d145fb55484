"""Comparing what millstream computes with the recordings."""

import json
import os

import numpy as np

from program_model import Built, feeds_checksum, run_after, run_steps

HERE = os.path.dirname(os.path.abspath(__file__))
RECORDED = os.path.join(HERE, "recorded")
# Programs whose gradient runs through a block of operators: how that gradient is spelled is an implementation's own business.
BLOCK_GRADIENTS = (
    "while_sum-array",
    "recurrent_units",
    "seq2seq",
    "language_model",
    "branches-ifelse",
    "branches-cond",
    "branches-case",
    "gradients-penalty",  # 1.8.5 leaves out terms of second derivatives
)


def recorded_facts():
    with open(os.path.join(RECORDED, "programs.json")) as source:
        return json.load(source)


def recorded_arrays(name):
    return np.load(os.path.join(RECORDED, "programs", name + ".npz"), allow_pickle=False)


def set_values(fluid, scope, arrays, prefix):
    """Put `<prefix><variable>` arrays into the scope; each must exist there with that shape and dtype."""
    wrong = []
    for key in arrays.files:
        if not key.startswith(prefix):
            continue
        var = scope.find_var(key[len(prefix) :])
        if var is None:
            wrong.append("%s: not in the scope" % key)
            continue
        tensor, value = var.get_tensor(), arrays[key]
        here = np.array(tensor)
        if here.shape != value.shape or here.dtype != value.dtype:
            wrong.append("%s: want %s %s, got %s %s" % (key, value.shape, value.dtype, here.shape, here.dtype))
        tensor.set(value, fluid.CPUPlace())
    return wrong


def difference(name, got, want, rtol, atol=5e-5):
    """None, or one line telling how far `got` is from `want`."""
    got = np.asarray(got)
    if got.shape != want.shape or got.dtype != want.dtype:
        return "%s: want %s %s, got %s %s" % (name, want.shape, want.dtype, got.shape, got.dtype)
    if want.dtype.kind in "biu":
        same = np.array_equal(got, want)
        return None if same else "%s: %d of %d differ" % (name, (got != want).sum(), want.size)
    scale = max(1.0, float(np.abs(want).max())) if want.size else 1.0
    if np.allclose(got, want, rtol=rtol, atol=atol * scale, equal_nan=True):
        return None
    return "%s: differs by up to %.3g (values up to %.3g)" % (name, np.abs(got - want).max(), scale)


def run_program(fluid, module, variant, arrays, facts):
    """Differences in values, as lines, over all the steps."""
    built = Built(fluid, module, variant)
    if feeds_checksum(built.model.feeds) != facts["feeds"]:
        return ["the feeds are not those of the recording"]
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(built.startup)
        found = set_values(fluid, scope, arrays, "init.")
        if found:
            return found
        losses, kept, lods = run_steps(fluid, exe, built)
        values = {k[6:]: np.array(scope.find_var(k[6:]).get_tensor()) for k in arrays.files if k.startswith("final.")}
        kept.update(run_after(fluid, exe, built))
    for step, (got, want) in enumerate(zip(losses, arrays["loss"] if losses else ())):
        if abs(got - want) > 1e-4 * abs(want) + 1e-6:
            found.append("loss at step %d: want %.7g, got %.7g" % (step, want, got))
            break
    for key in arrays.files:
        if key.split(".")[0] in ("fetch0", "fetch%d" % (len(built.model.feeds) - 1), "test", "after"):
            found.append(difference(key, kept[key], arrays[key], 1e-3))
        if key.startswith("final."):
            found.append(difference(key, values[key[6:]], arrays[key], 1e-3))
    got_lods = {k: [list(level) for level in v] for k, v in lods.items() if v}
    if got_lods != facts["lods"]:
        found.append("lengths: want %s, got %s" % (facts["lods"], got_lods))
    return [line for line in found if line]


def compare_statistics(fluid, module, variant, arrays):
    """Initial values: exact where the recording is constant, else by mean, deviation and bounds."""
    built = Built(fluid, module, variant)
    exe, scope, found = fluid.Executor(fluid.CPUPlace()), fluid.Scope(), []
    with fluid.scope_guard(scope):
        exe.run(built.startup)
        for key in arrays.files:
            size, mean, std, low, high = arrays[key]
            value = np.array(scope.find_var(key[5:]).get_tensor()).astype("float64")
            here = value.size, value.mean(), value.std(), value.min(), value.max()
            spread = 6 * std / np.sqrt(size) + 1e-7
            good = here[0] == size and abs(here[1] - mean) < spread and abs(here[2] - std) < 0.1 * std + 1e-7
            reach = 0.35 * (high - low) + 1e-7
            if not (good and abs(here[3] - low) < reach and abs(here[4] - high) < reach):
                found.append("%s: want (count, mean, std, min, max) %s, got %s" % (key, arrays[key], here))
    return found
