"""A batch cut into parts, one for each thread: every part runs on one thread of an engine, without waiting for others.

Engines share every layer between their threads, which then wait for the slowest of them. Of a batch of many rows each
thread may as well take some rows through the whole model, if the model treats every row by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from millstream.errors import EnforceNotMet, NotSupportedError
from millstream.inference import engines
from millstream.inference.engine_op import SubModel, array_of
from millstream.inference.model import Form, Model, Result
from millstream.inference.partition import Partition, partition
from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.ops._values import NO_LOD, LoD
from millstream.passes import pipelines
from millstream.passes.loops._rowwise import UNARY
from millstream.runtime.plan import Context

_ALIKE = UNARY | {
    "conv2d", "depthwise_conv2d", "conv2d_transpose", "conv3d", "pool2d", "pool3d", "affine_channel", "lrn", "maxout",
    "instance_norm", "group_norm", "prelu", "nearest_interp", "bilinear_interp", "lookup_table", "lookup_table_v2", "pad2d",
    "pixel_shuffle", "shuffle_channel", "space_to_depth", "yolo_box", "one_hot", "one_hot_v2", "quantize_linear",
    "dequantize_linear",
}  # fmt: skip
_OF_SHAPES = frozenset({"prior_box", "density_prior_box", "anchor_generator"})  # they look at sizes of maps alone
_AXIS = frozenset({"softmax", "log_softmax", "concat", "split", "stack", "arg_max", "arg_min", "unstack"})
_REDUCTIONS = frozenset(f"reduce_{k}" for k in ("sum", "mean", "max", "min", "prod"))


class SplitForm(Form):
    """A Form that cuts its inputs along dim 0."""

    def __init__(self, model: Model, name: str, sub: SubModel, parts: int) -> None:
        super().__init__(model, name, model.program, engines=[sub])
        self.sub = sub
        self.parts = parts
        self._pool = ThreadPoolExecutor(parts - 1, thread_name_prefix="millstream-split")

    def run(self, values: list[torch.Tensor], lods: list[LoD], ctx: Context) -> list[Result]:
        arrays = [array_of(v) for v in values]
        rows = {a.shape[0] for a in arrays}
        if len(rows) != 1:
            raise EnforceNotMet(f"{self.name}: inputs of {sorted(rows)} rows can't be cut into parts")
        edges = np.linspace(0, rows.pop(), self.parts + 1).astype(int).tolist()
        pieces = [[a[i:j] for a in arrays] for i, j in pairwise(edges) if j > i]
        waiting = [self._pool.submit(self._part, piece) for piece in pieces[1:]]
        try:
            found = [self._part(pieces[0])]
        finally:
            others = [w.exception() or w.result() for w in waiting]  # wait for all, whatever the first did
        for other in others:
            if isinstance(other, BaseException):
                raise other
            found.append(other)
        return [(torch.from_numpy(np.concatenate(part)), NO_LOD) for part in zip(*found)]

    def _part(self, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        found = self.sub.run(arrays)
        return found if self.sub.keeps else [y.copy() for y in found]


def can_split(model: Model, values: Sequence[torch.Tensor]) -> bool:
    """Whether a request has rows for several threads."""
    return bool(values) and all(v.dim() > 0 and v.shape[0] == values[0].shape[0] for v in values) and len(values[0]) > 1


def split(model: Model, engine: str, options: engines.Options) -> Partition:
    """The Form that runs on `engine` in parts.

    Raises NotSupportedError: it does not take the whole model, there is one thread, or rows are not treated alike.
    """
    reason = why_not(model)
    if options.threads < 2:
        reason = "it has one thread"
    if reason is not None:
        raise NotSupportedError(f"the batch can't be cut: {reason}")
    own = replace(options, threads=1)
    if engine == "openvino":  # there one model has several streams, else requests of several threads take turns
        settings = {"NUM_STREAMS": str(options.threads), "PERFORMANCE_HINT": "THROUGHPUT"}
        own = replace(options, settings={**options.settings, **settings})
    made = partition(model, engine, own)
    if made.form is not None:
        if made.form.direct is None:
            raise NotSupportedError(f"the batch can't be cut: {engine} does not take the whole model")
        made.form = SplitForm(model, f"{engine} split", made.form.direct, options.threads)
    return made


# ---- rows --------------------------------------------------------------------------------------------
def why_not(model: Model) -> str | None:
    """Why the model does not treat every row (dim 0 of inputs and results) by itself, or None."""
    for var in (*model.vars, *model.results):
        if var is None or var.lod_level or not var.has_shape or not var.shape or var.shape[0] >= 0:
            return f"{var.name if var is not None else 'a result'} has no rows of an open number"
    work = model.optimized(model.program, pipelines.EXPORT)
    model.keep(work.values)
    block, rows = work.block, set(model.feeds)
    for op in block.ops:
        if op.type in ("feed", "fetch", *_OF_SHAPES) or not rows.intersection(op.input_arg_names):
            continue
        if op.sub_blocks() or not _alike(op, rows, block):
            return f"{op.type} ({', '.join(op.output_arg_names[:1])}) may mix rows"
        rows.update(op.output_arg_names)
    loose = [name for name in model.fetches if name not in rows]
    return f"{loose[0]!r} does not depend on the rows" if loose else None


def _alike(op: Operator, rows: set[str], block: Block) -> bool:
    """Whether `op` treats the rows of its inputs in `rows` alike; its other inputs are the same for all parts."""

    def rank(name: str) -> int:
        var = block._find_var_recursive(name)
        return len(var.shape) if var is not None and var.has_shape else 0

    given = [n for n in op.input_arg_names if n in rows]
    dims = rank(given[0])
    if not dims:
        return False
    if op.type in _ALIKE:
        return len(given) == (2 if op.type == "yolo_box" else 1)
    if op.type.startswith("elementwise_"):
        return _elementwise(op, rows, block, rank)
    if op.type in ("batch_norm", "dropout"):
        return bool(op.attr("is_test")) and len(given) == 1
    if op.type in _AXIS:
        every = len(given) == sum(len(op.input(s)) for s in op.inputs if s in ("X",))
        return every and op.attr("axis") % (dims + (op.type == "stack")) != 0
    if op.type in _REDUCTIONS:
        return not op.attr("reduce_all") and all(d % dims for d in op.attr("dim"))
    return _OTHERS[op.type](op, given, rank, block) if op.type in _OTHERS else False


def _elementwise(op: Operator, rows: set[str], block: Block, rank: Callable[[str], int]) -> bool:
    x, y = op.input("X")[0], op.input("Y")[0]
    if x in rows and y in rows:
        return rank(x) == rank(y) or (op.attr("axis") == 0 and 0 < rank(y) < rank(x))
    if y in rows:
        return False
    var = block._var_recursive(y)
    axis = op.attr("axis")
    return all(d == 1 for d in var.shape) or (rank(y) < rank(x) and axis != 0) or var.shape[0] == 1


def _matmul(op: Operator, given: list[str], rank: Callable[[str], int], block: Block) -> bool:
    x, y = op.input("X")[0], op.input("Y")[0]
    if x in given and y in given:
        return rank(x) == rank(y) >= 3
    return x in given and rank(x) >= 2 and rank(y) == 2 and not (rank(x) == 2 and op.attr("transpose_X"))


def _reshape(op: Operator, given: list[str], rank: Callable[[str], int], block: Block) -> bool:
    var, shape = block._var_recursive(given[0]), list(op.attr("shape") or [])
    if len(op.input_arg_names) != 1 or not shape:
        return False
    if shape[0] == 0:
        return True
    here, there = list(var.shape[1:]), [var.shape[i] if d == 0 else d for i, d in enumerate(shape)][1:]
    return shape[0] == -1 and all(d > 0 for d in (*here, *there)) and np.prod(here) == np.prod(there)


_OTHERS: dict[str, Callable[[Operator, list[str], Callable[[str], int], Block], bool]] = {
    "mul": lambda op, given, rank, block: op.input("X") == given and op.attr("x_num_col_dims") >= 1,
    "fc": lambda op, given, rank, block: op.input("Input") == given and op.attr("in_num_col_dims") >= 1,
    "matmul": _matmul,
    "layer_norm": lambda op, given, rank, block: op.attr("begin_norm_axis") >= 1 and len(given) == 1,
    "transpose2": lambda op, given, rank, block: op.attr("axis")[0] == 0,
    "transpose": lambda op, given, rank, block: op.attr("axis")[0] == 0,
    "reshape2": _reshape,
    "reshape": _reshape,
    "flatten2": lambda op, given, rank, block: op.attr("axis") >= 1,
    "flatten": lambda op, given, rank, block: op.attr("axis") >= 1,
    "squeeze2": lambda op, given, rank, block: bool(op.attr("axes")) and all(a % rank(given[0]) for a in op.attr("axes")),
    "unsqueeze2": lambda op, given, rank, block: all(a > 0 for a in op.attr("axes")),
    "slice": lambda op, given, rank, block: len(given) == 1 and 0 not in op.attr("axes"),
    "expand": lambda op, given, rank, block: op.attr("expand_times")[:1] == [1],
    "top_k": lambda op, given, rank, block: rank(given[0]) > 1,
    "sum": lambda op, given, rank, block: len(given) == len(op.input_arg_names) and len({rank(n) for n in given}) == 1,
    "box_coder": lambda op, given, rank, block: given == op.input("TargetBox") and op.attr("axis") == 0
    and op.attr("code_type") == "decode_center_size" and rank(given[0]) == 3,
}  # fmt: skip
