"""Run one layer case against a `fluid` module and describe the Program it built.

Works under Python 3.7 (PaddlePaddle 1.8.5) and 3.11 (millstream), so it uses no newer syntax.
"""

import collections
import importlib
import re

import numpy as np

FAMILIES = ("nn", "tensor", "sequence", "detection", "control", "training", "errors")
HIDDEN = {"op_callstack": None, "op_namescope": "/", "op_device": "", "op_role_var": [], "op_role": 0}


def read_cases(family):
    """{case id: code} of one family; a one-line case is named <function>.<n>."""
    text = importlib.import_module("layer_cases." + family).CASES
    cases = collections.OrderedDict()
    if "\n---" in text or text.startswith("---"):
        for part in re.split(r"(?m)^--- ", text)[1:]:
            name, code = part.split("\n", 1)
            cases[name.strip()] = code.rstrip() + "\n"
        return cases
    count = collections.Counter()
    for line in filter(None, text.strip().splitlines()):
        found = re.match(r"\(?((?:L|fluid)(?:\.[A-Za-z]\w*)+)\(", line)
        stem = found.group(1).replace("L.", "").replace("fluid.", "fluid_") if found else "expr"
        count[stem] += 1
        cases["%s%s.%d" % ("refused_" if family == "errors" else "", stem, count[stem] - 1)] = line
    return cases


def trace(fluid, code, inputs):
    """Build `code` in empty programs; returns the record kept in layer_names.json."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(main, startup):
        env = {"fluid": fluid, "L": fluid.layers, "np": np}
        used = [w for w in collections.OrderedDict.fromkeys(re.findall(r"\b[a-z]\w*\b", code)) if w in inputs]
        assigned = set(re.findall(r"(?m)(?:^|[;,(]|for)\s*(\w+)\s*(?:=[^=]|,.*=[^=])", code)) if "\n" in code else set()
        declared = []
        for name in used:
            if name in assigned and not re.search(r"[(\[, ]%s[,)\]]" % name, code):
                continue
            shape, dtype, lod = inputs[name]
            env[name] = fluid.data(name, shape, dtype, lod)
            declared.append(name)
        if "\n" in code:
            exec(code, env)
            out = env["out"]
        else:
            out = eval(code, env)
    return {"code": code, "inputs": declared, "returns": names_of(out), "main": describe(main), "startup": describe(startup)}


def names_of(out):
    if isinstance(out, (list, tuple)):
        return [names_of(v) for v in out]
    return out.name if hasattr(out, "name") else repr(out)[:60]


def describe(program):
    return [
        {"parent": b.parent_idx, "ops": [describe_op(op) for op in b.ops], "vars": describe_vars(b)} for b in program.blocks
    ]


def describe_op(op):
    attrs = {}
    for name in sorted(op.attr_names):
        kind = str(op.attr_type(name)).rsplit(".", 1)[-1]
        if name in ("op_callstack",):
            continue
        if kind == "BLOCK":
            attrs[name] = "block %d" % op._block_attr_id(name)
            continue
        if kind == "BLOCKS":
            attrs[name] = "blocks %s" % list(op._blocks_attr_ids(name))
            continue
        value = plain(op.attr(name))
        if name in HIDDEN and value == HIDDEN[name]:
            continue
        attrs[name] = value
    return {
        "type": op.type,
        "inputs": {s: list(op.input(s)) for s in sorted(op.input_names)},
        "outputs": {s: list(op.output(s)) for s in sorted(op.output_names)},
        "attrs": attrs,
    }


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float("%.7g" % value) if abs(value) < 1e300 else str(value)
    if isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        return value.decode()
    return str(value)


def describe_vars(block):
    """name -> [type, dtype, shape, lod_level, flags]; flags: p persistable, s stop_gradient, P Parameter, T trainable."""
    found = {}
    for name, var in sorted(block.vars.items()):
        kind = str(var.type).rsplit(".", 1)[-1]
        flags = ("p" if var.persistable else "") + ("s" if var.stop_gradient else "")
        if hasattr(var, "trainable") and hasattr(var, "regularizer"):
            flags += "P" + ("T" if var.trainable else "")
        dtype, shape, lod = None, None, None
        if kind in ("LOD_TENSOR", "SELECTED_ROWS", "LOD_TENSOR_ARRAY"):
            dtype = str(var.dtype).rsplit(".", 1)[-1]
            shape = list(var.shape)
            lod = var.lod_level if kind != "SELECTED_ROWS" else None
        found[name] = [kind, dtype, shape, lod, flags]
    return found
