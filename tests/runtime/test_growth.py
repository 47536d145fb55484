"""Lowering asks in proportion to what a Program holds: counted, not timed."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.ir.operator import Operator
from millstream.passes._uses import Uses
from millstream.runtime import plan

layers = fluid.layers


def first_run(build, feed):
    """The loss of the first run of the Program that `build` makes; every fetch after it gives the same forms."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        loss = build()
        fluid.optimizer.SGD(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        return float(exe.run(main, feed=feed, fetch_list=[loss])[0].item())


def nested(depth):
    x = layers.data("x", [4], append_batch_size=False)
    x.stop_gradient = False

    def inside(left, v):
        if not left:
            return layers.scale(v, 2.0)
        below = layers.less_than(layers.reduce_sum(v), layers.fill_constant([1], "float32", 1e9))
        return layers.cond(below, lambda: inside(left - 1, v + 1.0), lambda: layers.scale(v, 0.5))

    return layers.mean(inside(depth, x))


def test_sub_blocks_of_nested_conditions_are_lowered_a_few_times_each(monkeypatch):
    lowered = []
    real = plan.lower_body
    monkeypatch.setattr(plan, "lower_body", lambda block, *rest: lowered.append(block.idx) or real(block, *rest))
    loss = first_run(lambda: nested(10), {"x": np.ones(4, "float32")})
    assert loss == pytest.approx(2 * 11)
    assert len(set(lowered)) == 20
    assert len(lowered) <= 3 * 20


def residual(blocks):
    x = layers.data("x", [2, 3, 3])
    for _ in range(blocks):
        y = layers.batch_norm(layers.conv2d(x, 2, 1, bias_attr=False))
        x = layers.relu(layers.elementwise_add(x, y))
    return layers.mean(x)


def test_residual_blocks_look_for_their_feeds_once(monkeypatch):
    asked = []
    real = Uses.producer
    monkeypatch.setattr(Uses, "producer", lambda self, *given: asked.append(1) or real(self, *given))
    counts = []
    for blocks in (8, 16):
        asked.clear()
        first_run(lambda n=blocks: residual(n), {"x": np.ones((2, 2, 3, 3), "float32")})
        counts.append(len(asked))
    assert 0 < counts[1] <= 2.5 * counts[0]


def test_gradients_of_a_wide_sum_read_its_operands_once(monkeypatch):
    listed = []
    real = Operator.input_arg_names.fget

    def names(self):
        found = real(self)
        listed.append(len(found))
        return found

    monkeypatch.setattr(Operator, "input_arg_names", property(names))
    counts = []
    for width in (20, 40):
        listed.clear()

        def wide(width=width):
            x = layers.fc(layers.data("x", [3]), 3)
            return layers.mean(layers.sum([layers.scale(x, float(k)) for k in range(width)]))

        first_run(wide, {"x": np.ones((2, 3), "float32")})
        counts.append(sum(listed))
    assert counts[1] <= 2.3 * counts[0]
