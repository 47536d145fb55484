"""Imperative programs: what a file hands over, and the loop that runs it. Runs under Python 3.7 and 3.11."""

import importlib

import numpy as np


class DygraphModel(object):
    """layer, its feeds (name -> array), step(fluid, layer, feed) -> [loss, more Variables], optimizer(parameters) -> Optimizer."""

    def __init__(self, layer, feeds, step, optimizer, after_step=None, record_rate=False, keep_gradients=False):
        self.layer, self.feeds, self.step, self.optimizer = layer, feeds, step, optimizer
        self.after_step, self.record_rate, self.keep_gradients = after_step, record_rate, keep_gradients


def dygraph_programs():
    """[(id, module, variant)]"""
    found = []
    for name in ("nets", "updates"):
        module = importlib.import_module("programs.dygraph." + name)
        found += [(name + "-" + variant, module, variant) for variant in module.VARIANTS]
    return found


def describe_layer(layer):
    """Names as a user sees them: state_dict keys with parameter names, parameters() order, sublayers' full names."""
    state = layer.state_dict()
    return {
        "state_dict": [[key, value.name, list(value.shape)] for key, value in state.items()],
        "parameters": [p.name for p in layer.parameters()],
        "named_parameters": [n for n, _ in layer.named_parameters()],
        "sublayers": [sub.full_name() for sub in layer.sublayers()],
        "full_name": layer.full_name(),
    }


def run_dygraph(fluid, module, variant, initial=None):
    """Train; returns (facts, {key: array}). `initial` (state_dict key -> array) replaces the random start."""
    arrays = {}
    with fluid.dygraph.guard(fluid.CPUPlace()), fluid.unique_name.guard():
        model = module.build(fluid, variant)
        layer, facts = model.layer, describe_layer(model.layer)
        if initial is not None:
            layer.set_dict({key: initial["init." + key] for key in layer.state_dict()})
        arrays.update(("init." + k, v.numpy()) for k, v in layer.state_dict().items())
        optimizer = model.optimizer(layer.parameters())
        losses, rates = [], []
        for number, feed in enumerate(model.feeds):
            outs = model.step(fluid, layer, {k: fluid.dygraph.to_variable(v) for k, v in feed.items()})
            outs[0].backward()
            if model.keep_gradients and number == 0:
                arrays.update(("grad." + p.name, p.gradient()) for p in layer.parameters())
            optimizer.minimize(outs[0])
            if model.record_rate:
                rates.append(optimizer.current_step_lr())
            layer.clear_gradients()
            losses.append(float(outs[0].numpy().reshape(-1)[0]))
            if model.after_step is not None:
                model.after_step(number, outs[0])
            if number in (0, len(model.feeds) - 1):
                arrays.update(("fetch%d.%d" % (number, i), v.numpy()) for i, v in enumerate(outs[1:]))
        arrays.update(("final." + k, v.numpy()) for k, v in layer.state_dict().items())
        layer.eval()
        with fluid.dygraph.no_grad():
            outs = (
                model.step(fluid, layer, {k: fluid.dygraph.to_variable(v) for k, v in model.feeds[0].items()})
                if not model.keep_gradients
                else []
            )
        arrays.update(("eval.%d" % i, v.numpy()) for i, v in enumerate(outs))
        state = optimizer.state_dict()
        facts["optimizer_state"] = sorted(k for k in state)
        arrays["loss"] = np.array(losses, "float64")
        if rates:
            arrays["rate"] = np.array(rates, "float64")
    return facts, arrays


def save_dygraph_states(fluid, module, variant, path):
    """Train three steps, write `path`.pdparams and `path`.pdopt; returns {"params.<key>" or "opt.<key>": array}."""
    with fluid.dygraph.guard(fluid.CPUPlace()), fluid.unique_name.guard():
        model = module.build(fluid, variant)
        optimizer = model.optimizer(model.layer.parameters())
        for feed in model.feeds[:3]:
            outs = model.step(fluid, model.layer, {k: fluid.dygraph.to_variable(v) for k, v in feed.items()})
            outs[0].backward()
            optimizer.minimize(outs[0])
            model.layer.clear_gradients()
        fluid.dygraph.save_dygraph(model.layer.state_dict(), path)
        fluid.dygraph.save_dygraph(optimizer.state_dict(), path)
        arrays = {"params." + k: v.numpy() for k, v in model.layer.state_dict().items()}
        arrays.update(state_arrays(optimizer.state_dict()))
    return arrays


def load_dygraph_states(fluid, path):
    """The same keys, read back from the two files."""
    with fluid.dygraph.guard(fluid.CPUPlace()):
        params, opt = fluid.dygraph.load_dygraph(path)
    arrays = {"params." + k: np.array(v) for k, v in params.items()}
    arrays.update(state_arrays(opt))
    return arrays


def state_arrays(state):
    """Optimizer state as arrays; the schedule's own dict and tables of names are left out."""
    found = {}
    for key, value in state.items():
        if isinstance(value, dict):
            continue
        found["opt." + key] = value.numpy() if hasattr(value, "numpy") else np.array(value)
    return found
