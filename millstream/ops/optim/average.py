"""average_accumulates: running sums of a parameter over a window of steps (ModelAverage)."""

from __future__ import annotations

import torch

from millstream.ops._opdef import Long, op
from millstream.ops._values import Spec
from millstream.ops.optim._sparse import scalar

_MOVE_EVERY = 16384  # sum_1 goes into sum_2 after so many steps, so that small addends do not vanish



def _spec(param: Spec, *inputs: Spec, **_: object) -> tuple[Spec, ...]:
    counts = (Spec((1,), s.dtype) for s in inputs[3:])
    return *(Spec(param.shape, s.dtype) for s in inputs[:3]), *counts


@op(
    "average_accumulates",
    slots="param, in_sum_1, in_sum_2, in_sum_3, in_num_accumulates, in_old_num_accumulates, in_num_updates "
    "-> out_sum_1, out_sum_2, out_sum_3, out_num_accumulates, out_old_num_accumulates, out_num_updates",
    infer=_spec,
    grad=False,
)
def average_accumulates(
    param, sum_1, sum_2, sum_3, num_accumulates, old_num_accumulates, num_updates, *,
    average_window: float = 0.0, max_average_window: Long, min_average_window: Long = 10000,
):  # fmt: skip
    """sum_1 += param. Every 16384 updates sum_1 moves into sum_2. When the window is full

    (num_accumulates >= min_average_window and >= min(max_average_window, num_updates * average_window))
    sum_1 + sum_2 becomes sum_3 and counting starts anew.
    """
    updates, count, old = (int(scalar(v)) for v in (num_updates, num_accumulates, old_num_accumulates))
    updates, count = updates + 1, count + 1
    sum_1 = sum_1 + param
    if updates % _MOVE_EVERY == 0:
        sum_1, sum_2 = torch.zeros_like(sum_1), sum_2 + sum_1
    if count >= min_average_window and count >= min(max_average_window, int(updates * average_window)):
        sum_3 = sum_1 + sum_2
        sum_1, sum_2 = torch.zeros_like(sum_1), torch.zeros_like(sum_2)
        count, old = 0, count
    values = ((num_accumulates, count), (old_num_accumulates, old), (num_updates, updates))
    return sum_1, sum_2, sum_3, *(torch.full_like(v, n) for v, n in values)
