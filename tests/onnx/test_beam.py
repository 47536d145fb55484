"""Beam search as ONNX: sources that end early, prefixes that ended, loops that go on when nothing is left."""

import numpy as np
import onnx
import pytest
from golden import offsets, session

import millstream.fluid as fluid
from millstream import onnx as ms_onnx

layers = fluid.layers
WORDS, END, STEPS = 6, 1, 5


def program(beam, accumulated):
    """The next word depends on the last alone: table [WORDS, WORDS] of probabilities."""
    ids = fluid.data("ids", [None, 1], "int64", lod_level=2)
    scores = fluid.data("scores", [None, 1], lod_level=2)
    table = layers.create_parameter([WORDS, WORDS], "float32", name="table")
    counter, limit = layers.fill_constant([1], "int64", 0), layers.fill_constant([1], "int64", STEPS)
    all_ids, all_scores = layers.array_write(ids, counter), layers.array_write(scores, counter)
    going = layers.less_than(counter, limit)
    loop = layers.While(going)
    with loop.block():
        last, before = layers.array_read(all_ids, counter), layers.array_read(all_scores, counter)
        chances = layers.gather(table, layers.reshape(last, [-1]))
        best, which = layers.topk(chances, k=3)
        if accumulated:
            best = layers.elementwise_add(layers.log(best), layers.reshape(before, [-1]), axis=0)
        best = layers.lod_reset(best, before)
        chosen, points = layers.beam_search(last, before, which, best, beam, END, is_accumulated=accumulated)
        layers.increment(counter)
        layers.array_write(chosen, counter, all_ids)
        layers.array_write(points, counter, all_scores)
        layers.less_than(counter, limit, cond=going)
    return layers.beam_search_decode(all_ids, all_scores, beam_size=beam, end_id=END)


@pytest.mark.parametrize("beam", [1, 2, 4])
@pytest.mark.parametrize("accumulated", [True, False])
@pytest.mark.parametrize("ends", [0.05, 0.5, 0.97])
def test_a_search_with_words_that_depend_on_the_last(beam, accumulated, ends):
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        outs = program(beam, accumulated)
    table = np.random.rand(WORDS, WORDS) + 0.05
    table[:, END] = 0
    table = table / table.sum(1, keepdims=True) * (1 - ends)
    table[:, END] = ends * np.random.uniform(0.9, 1, WORDS)
    scope = fluid.Scope()
    scope.var("table").get_tensor().set(table.astype("float32"), fluid.CPUPlace())
    ids, scores = np.array([[2], [0], [4]]), np.random.uniform(-1, 0, (3, 1)).astype("float32")
    levels = [[1, 1, 1], [1, 1, 1]]
    feed = {k: fluid.create_lod_tensor(v, levels, fluid.CPUPlace()) for k, v in (("ids", ids), ("scores", scores))}
    with fluid.scope_guard(scope):
        want = fluid.Executor().run(main, feed=feed, fetch_list=list(outs), return_numpy=False)
    model = ms_onnx.export(main, ["ids", "scores"], [o.name for o in outs], scope)
    onnx.checker.check_model(model, full_check=True)
    given = {"ids": ids, "scores": scores}
    given |= {f"{name}.lod{k}": offsets(level) for name in ("ids", "scores") for k, level in enumerate(levels)}
    ran = session(model)
    found = dict(zip([o.name for o in ran.get_outputs()], ran.run(None, {i.name: given[i.name] for i in ran.get_inputs()})))
    for out, value in zip(outs, want):
        np.testing.assert_allclose(found[out.name], np.array(value), rtol=1e-5, atol=1e-6)
        assert [found[f"{out.name}.lod{k}"].tolist() for k in range(2)] == value.lod()
