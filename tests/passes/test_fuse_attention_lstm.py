"""A DynamicRNN with attention over its own sequence, as one writes it with Fluid's layers -> attention_lstm."""

import numpy as np
import pytest
from inference_models import compare

import millstream.fluid as fluid
from millstream import passes
from millstream.fluid import layers
from millstream.passes import pipelines

ROWS, WIDTH = 5, 6
RNG = np.random.RandomState(0)


def attention(rows, cell, *, apart=False, act="relu", scaled=False, pooled="sum", flat=True):
    spread = layers.sequence_expand(cell, rows)
    scores = layers.fc([rows, spread] if apart else layers.concat([rows, spread], axis=1), 1, act=act, bias_attr=None)
    if scaled:
        scores = layers.fc(scores, 1, act="relu")
    shares = layers.sequence_softmax(scores)
    shares = layers.reshape(shares, [-1]) if flat else shares
    return layers.sequence_pool(layers.elementwise_mul(rows, shares, axis=0), pooled)


def written_out(mean, hidden, cell):
    """The LSTM of the book's translation chapter."""
    def gate(act):
        return layers.fc([hidden, mean], WIDTH, act=act)

    forget, enter, leave, candidate = gate("sigmoid"), gate("sigmoid"), gate("sigmoid"), gate("tanh")
    cell = layers.sums([layers.elementwise_mul(forget, cell), layers.elementwise_mul(enter, candidate)])
    return layers.elementwise_mul(leave, layers.tanh(cell)), cell


def unit(mean, hidden, cell):
    return layers.lstm_unit(mean, hidden, cell, forget_bias=0.5)


def program(folder, step=unit, start=0.0, reorder=True, results="h", walk="x", **how):
    """Save the model; (folder, feed)."""
    lengths = [[3, 0, 5, 1]]
    feed = {
        "x": fluid.create_lod_tensor(RNG.uniform(-1, 1, (9, ROWS)).astype("float32"), lengths, None),
        "c0": RNG.uniform(-1, 1, (4, WIDTH)).astype("float32"),
        "other": fluid.create_lod_tensor(RNG.uniform(-1, 1, (9, ROWS)).astype("float32"), lengths, None),
    }
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 3
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(main, startup):
        x, other = (fluid.data(n, [None, ROWS], lod_level=1) for n in ("x", "other"))
        c0 = fluid.data("c0", [None, WIDTH])
        rnn = layers.DynamicRNN()
        with rnn.block():
            rnn.step_input(x if walk == "x" else other)
            rows = rnn.static_input(x)
            hidden = rnn.memory(shape=[WIDTH], value=start)
            cell = rnn.memory(init=c0, need_reorder=reorder)
            new, new_cell = step(attention(rows, cell, **how), hidden, cell)
            rnn.update_memory(hidden, new)
            rnn.update_memory(cell, new_cell)
            rnn.output(*{"h": [new], "hc": [new, new_cell], "other": [layers.scale(new, 2.0)]}[results])
        found = rnn()
        exe = fluid.Executor()
        exe.run(startup)
        targets = found if isinstance(found, list) else [found]
        fed = [n for n in feed if n != "other" or walk == "other"]
        fluid.io.save_inference_model(str(folder), fed, targets, exe, main)
    return str(folder), {n: feed[n] for n in fed}


@pytest.mark.parametrize("how", [
    {}, {"apart": True}, {"scaled": True, "start": 0.25}, {"flat": False, "results": "hc"}, {"step": written_out},
    {"step": written_out, "apart": True, "scaled": True, "results": "hc"},
])  # fmt: skip
def test_it_fires(tmp_path, how):
    work = compare(*program(tmp_path, **how))
    assert work.counts()["fuse_attention_lstm"] == 1
    assert [op.type for op in work.block.ops if op.type not in ("feed", "fetch", "fill_constant_batch_size_like")] == [
        "attention_lstm"
    ]


REFUSED = [
    ({"act": "tanh"}, "its step is not an LSTM over a mean of the sequence"),
    ({"act": "tanh", "step": written_out}, "its step is not an LSTM over a mean of the sequence"),
    ({"pooled": "average"}, "the rows are pooled by AVERAGE, not summed"),
    ({"reorder": False}, "is not in the order of the sequences"),
    ({"results": "other"}, "its step is not an LSTM over a mean of the sequence"),
    ({"walk": "other"}, "it does not walk through the sequence that the attention sees"),
]


@pytest.mark.parametrize(("how", "why"), REFUSED)
def test_it_refuses(tmp_path, how, why):
    work = compare(*program(tmp_path, **how))
    assert "fuse_attention_lstm" not in work.counts()
    assert [w for n, _, w in work.refused if n == "fuse_attention_lstm" and why in w], work.explain()


def test_parameters_must_be_known(tmp_path):
    main = fluid.Program()
    folder, _ = program(tmp_path)
    with fluid.program_guard(main), fluid.scope_guard(fluid.Scope()):
        loaded, feeds, fetches = fluid.io.load_inference_model(folder, fluid.Executor())
    work = passes.optimize(loaded, feeds, [v.name for v in fetches], None, (*pipelines.CLEAN, "fuse_attention_lstm"))
    assert "the values of the parameters are not known" in work.explain()
