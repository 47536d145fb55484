"""DynamicRNNs by the row machine against themselves operator by operator: results, gradients, and what training makes."""

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import ShapeError
from millstream.passes import pipelines

layers = fluid.layers
LENGTHS = [3, 1, 4, 2, 4]
KEPT = [2, 3, 1, 1, 2]


def _sequences(name, width, lengths=LENGTHS, dtype="float32"):
    var = fluid.data(name, [None, width], dtype, lod_level=1)
    var.stop_gradient = dtype != "float32"
    rng = np.random.RandomState(len(name) + width)
    rows = rng.randint(0, 7, (sum(lengths), width)) if dtype == "int64" else rng.randn(sum(lengths), width)
    return var, fluid.create_lod_tensor(rows.astype(dtype), [lengths], fluid.CPUPlace())


def _fc(x, size, act=None, bias=True):
    return layers.fc(x, size, act=act, bias_attr=None if bias else False)


def simple(feed):
    x, feed["x"] = _sequences("x", 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(x)
        state = rnn.memory(shape=[5], value=0.25)
        new = _fc([word, state], 5, "tanh")
        rnn.update_memory(state, new)
        rnn.output(new)
    return [rnn()]


def lstm(feed):
    """lstm_unit, with its cell and its hidden state as results; one state starts from a dense layer in batch order."""
    x, feed["x"] = _sequences("x", 6)
    first = _fc(layers.sequence_pool(x, "average"), 8)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(x)
        hidden, cell = rnn.memory(init=first, need_reorder=True), rnn.memory(shape=[8], value=0.0)
        new_hidden, new_cell = layers.lstm_unit(word, hidden, cell, forget_bias=1.0)
        rnn.update_memory(hidden, new_hidden)
        rnn.update_memory(cell, new_cell)
        rnn.output(new_hidden, layers.scale(new_cell, 2.0, 0.5))
    return rnn()


def gru(feed):
    """gru_unit over word ids; the state starts from rows that stand in the order of the rank table."""
    ids, feed["ids"] = _sequences("ids", 1, dtype="int64")
    first = fluid.data("first", [None, 7])
    first.stop_gradient = False
    feed["first"] = np.random.RandomState(1).randn(len(LENGTHS), 7).astype("float32")
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(ids)
        state = rnn.memory(init=first)
        hidden, _, _ = layers.gru_unit(_fc(layers.embedding(word, [7, 4], is_sparse=True), 21), state, 21, origin_mode=True)
        rnn.update_memory(state, hidden)
        rnn.output(_fc(hidden, 6, "softmax"))
    return [rnn()]


def attention(feed):
    """A decoder with labels in the loop: attends to a source, costs are results."""
    x, feed["x"] = _sequences("x", 6)
    source, feed["source"] = _sequences("source", 4, KEPT)
    label, feed["label"] = _sequences("label", 1, dtype="int64")
    keys = _fc(source, 9, bias=False)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, right = rnn.step_input(x), rnn.step_input(label)
        kept, kept_keys = rnn.static_input(source), rnn.static_input(keys)
        state = rnn.memory(shape=[9], value=0.0)
        mixed = layers.tanh(kept_keys + layers.sequence_expand(_fc(state, 9, bias=False), kept_keys))
        weights = layers.reshape(layers.sequence_softmax(_fc(mixed, 1, bias=False)), [-1])
        context = layers.sequence_pool(layers.elementwise_mul(kept, weights, axis=0), "sum")
        new = _fc(layers.concat([word, context, layers.sequence_pool(mixed, "sqrt")], 1), 9, "sigmoid")
        mixture = new * state + (1.0 - new) * _fc(context, 9, "relu")
        rnn.update_memory(state, mixture)
        rnn.output(layers.cross_entropy(_fc(mixture, 8, "softmax"), right))
    return [rnn()]


def split_gates(feed):
    """Gates cut from one product; a state of a step input; a state that nothing reads; results of one value twice."""
    x, feed["x"] = _sequences("x", 6)
    y, feed["y"] = _sequences("y", 4)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, other = rnn.step_input(x), rnn.step_input(y)
        late, state = rnn.memory(shape=[4], value=1.0), rnn.memory(shape=[4], value=0.0)
        gates = _fc(word, 12) + _fc(state, 12, bias=False)
        a, b, c = layers.split(gates, 3, dim=1)
        scale = layers.create_parameter([4], "float32", default_initializer=fluid.initializer.Constant(1.5))
        new = layers.sigmoid(a) * late + layers.elementwise_mul(layers.tanh(b) / (2.0 + layers.sigmoid(c)), scale, axis=1)
        new = new - layers.slice(gates, [1], [2], [6])
        rnn.update_memory(late, other)
        rnn.update_memory(state, new)
        rnn.output(new, new, layers.square(new))
    return rnn()


def no_state(feed):
    x, feed["x"] = _sequences("x", 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(x)
        rnn.output(_fc(word, 3, "tanh"), word)
    return rnn()


def dropped(feed, p=0.0):
    """A state behind a dropout (of nothing, so that runs compare), and one behind the loop."""
    x, feed["x"] = _sequences("x", 5)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, state = rnn.step_input(x), rnn.memory(shape=[5], value=1.0)
        kept = layers.dropout(state, p, dropout_implementation="upscale_in_train")
        new = layers.dropout(_fc([word, kept], 5, "tanh"), 0.25, is_test=True)
        rnn.update_memory(state, new)
        rnn.output(layers.dropout(new, 0.0), kept)
    return rnn()


def mixed(feed):
    """A state per sequence kept whole, step inputs twice, and a parameter that is used outside of the loop too."""
    x, feed["x"] = _sequences("x", 5)
    pooled = _fc(layers.sequence_pool(x, "max"), 5)
    shared = fluid.ParamAttr("shared_w")
    outside = layers.fc(x, 5, param_attr=shared, bias_attr=False)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, again, more = rnn.step_input(x), rnn.step_input(x), rnn.step_input(outside)
        whole = rnn.static_input(pooled)
        state = rnn.memory(shape=[5], value=0.0)
        new = layers.relu(word * again + layers.fc(state, 5, param_attr=shared, bias_attr=False) - whole)
        rnn.update_memory(state, new)
        rnn.output(layers.sums([new, more, state]))
    return [rnn(), outside]


def static(feed):
    """A StaticRNN of two layers; word ids and vectors as step inputs, an output layer in the step."""
    x, ids = fluid.data("x", [4, None, 6]), fluid.data("ids", [4, None, 1], "int64")
    x.stop_gradient = False
    rng = np.random.RandomState(2)
    feed["x"], feed["ids"] = rng.randn(4, 3, 6).astype("float32"), rng.randint(0, 7, (4, 3, 1))
    first = _fc(layers.reduce_mean(x, 0), 5)
    rnn = layers.StaticRNN()
    with rnn.step():
        vector, word = rnn.step_input(x), rnn.step_input(ids)
        hidden, cell, state = rnn.memory(init=first), rnn.memory(shape=[-1, 5], batch_ref=vector), rnn.memory(init=first)
        gates = _fc([vector, layers.embedding(word, [7, 4]), hidden], 20)
        i, f, o, j = layers.split(gates, 4, dim=-1)
        new_cell = cell * layers.sigmoid(f) + layers.sigmoid(i) * layers.tanh(j)
        new_hidden = layers.tanh(new_cell) * layers.sigmoid(o)
        new_state, _, _ = layers.gru_unit(_fc(new_hidden, 15), state, 15)
        for old, new in ((hidden, new_hidden), (cell, new_cell), (state, new_state)):
            rnn.update_memory(old, new)
        rnn.step_output(_fc(new_state, 3, "softmax"))
        rnn.step_output(new_hidden)
    return rnn()


def masked(feed):
    """layers.rnn over a GRU cell with lengths (a mask of rank 1 in the step), and a number made outside of the loop."""
    x, count = fluid.data("x", [3, 4, 6]), fluid.data("count", [3], "int64")
    x.stop_gradient = False
    feed["x"] = np.random.RandomState(2).randn(3, 4, 6).astype("float32")
    feed["count"] = np.array([2, 4, 3])
    out, last = layers.rnn(layers.GRUCell(5), x, sequence_length=count)
    half, turned = layers.fill_constant([1], "float32", 0.5), layers.transpose(x, [1, 0, 2])
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(turned)
        state = rnn.memory(shape=[-1, 6], batch_ref=word)
        new = layers.elementwise_mul(word + state, half)
        rnn.update_memory(state, new)
        rnn.step_output(new)
    return [out, last, rnn()]


def _padded(feed, batch=3, rows=5):
    """(a sequence in steps, padded rows, a mask of them) of a decoder that attends to padded rows."""
    words, source = fluid.data("words", [4, None, 6]), fluid.data("source", [None, rows, 8])
    count = fluid.data("count", [None], "int64")
    words.stop_gradient = source.stop_gradient = False
    rng = np.random.RandomState(4)
    feed["words"], feed["source"] = rng.randn(4, batch, 6).astype("float32"), rng.randn(batch, rows, 8).astype("float32")
    feed["count"] = rng.randint(1, rows + 1, batch)
    mask = layers.scale(layers.sequence_mask(count, rows, dtype="float32"), 1e4, -1.0, bias_after_scale=False)
    return words, source, mask


def by_products(feed):
    """Attention to padded rows by products, keys other than values, a mask [batch, 1, rows]."""
    words, source, mask = _padded(feed)
    keys, mask = layers.fc(source, 7, num_flatten_dims=2, bias_attr=False), layers.unsqueeze(mask, [1])
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 7], batch_ref=word)
        scores = layers.matmul(layers.unsqueeze(state, [1]), keys, transpose_y=True, alpha=0.5)
        weights = layers.softmax(scores + mask)
        context = layers.squeeze(layers.matmul(weights, source), [1])
        new = _fc(layers.concat([word, context, state], 1), 7, "tanh")
        rnn.update_memory(state, new)
        rnn.step_output(new)
        rnn.step_output(context)
    return rnn()


def by_sums(feed):
    """Attention to padded rows by a layer over sums with the state, a mask [batch, rows], products added up."""
    words, source, mask = _padded(feed)
    keys = layers.fc(source, 7, num_flatten_dims=2, bias_attr=False)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 7], batch_ref=word)
        query = layers.unsqueeze(_fc(state, 7, bias=False), [1])
        mixed = layers.elementwise_add(keys, layers.expand(query, [1, layers.shape(query)[1], 1]))
        scores = layers.squeeze(layers.fc(layers.tanh(mixed), 1, num_flatten_dims=2, bias_attr=False), [2])
        weights = layers.softmax(layers.elementwise_add(scores, mask))
        context = layers.reduce_sum(layers.elementwise_mul(source, weights, axis=0), dim=1)
        new = _fc(layers.concat([word, context], 1), 7, "tanh") + state
        rnn.update_memory(state, new)
        rnn.step_output(new)
    return [rnn()]


def in_other_forms(feed):
    """The same with weights [batch, rows, 1], a layer with bias over the rows, numbers, and a sum that keeps its dim."""
    words, source, _ = _padded(feed, 4, 2)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 8], batch_ref=word)
        mixed = layers.elementwise_sub(source, layers.unsqueeze(state, [-2])) * 0.5 + 0.25
        inner = layers.fc(mixed, 6, num_flatten_dims=2, act="relu")
        weights = layers.softmax(layers.fc(inner, 1, num_flatten_dims=2, bias_attr=False), axis=1)
        weighted = layers.elementwise_mul(mixed, weights)
        context = layers.reshape(layers.reduce_sum(weighted, dim=[1], keep_dim=True), [-1, 8])
        plain = layers.reduce_sum(layers.sigmoid(weighted), dim=1)
        new = _fc([word, context, plain], 8, "tanh")
        rnn.update_memory(state, new)
        rnn.step_output(new)
    return [rnn()]


def keys_in_every_step(feed):
    """A cell that makes keys and mask anew in every step, and adds the mask to transposed scores."""
    words, source, mask = _padded(feed)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 7], batch_ref=word)
        keys = layers.fc(source, 7, num_flatten_dims=2, act="tanh")
        scores = layers.transpose(layers.matmul(layers.unsqueeze(state, [1]), keys, transpose_y=True), [1, 0, 2])
        scores = layers.transpose(layers.elementwise_add(scores, mask * 10.0, axis=-1), [1, 0, 2])
        context = layers.squeeze(layers.matmul(layers.softmax(scores), keys), [1])
        half = layers.create_parameter([7], "float32", default_initializer=fluid.initializer.Constant(0.8))
        new = _fc(layers.concat([word, context], 1), 7, "tanh") + layers.elementwise_mul(state, layers.square(half))
        rnn.update_memory(state, new)
        rnn.step_output(new)
    return [rnn()]


def one_source_for_all(feed):
    """Padded rows of a batch of one, which every sequence attends to."""
    results = in_other_forms(feed)
    feed["source"] = feed["source"][:1]
    return results


def states_of_states(feed):
    """A state becomes another one, that one the word; results are states before they move."""
    x, feed["x"] = _sequences("x", 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(x)
        before, last = rnn.memory(shape=[6], value=0.5), rnn.memory(shape=[6], value=0.25)
        rnn.update_memory(before, last)
        rnn.update_memory(last, word)
        rnn.output(before, _fc([before, last], 5, "tanh"), last)
    return rnn()


def swapped_states(feed):
    x, _, _ = _padded(feed)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(x)
        first = rnn.memory(shape=[-1, 6], batch_ref=word, init_value=0.5)
        second = rnn.memory(shape=[-1, 6], batch_ref=word, init_value=0.25)
        rnn.update_memory(first, second)
        rnn.update_memory(second, layers.tanh(word * first))
        for result in (first, second):
            rnn.step_output(result)
    return rnn()


def kept_rows_as_results(feed):
    """A row of each sequence, and what is made of it, stand in each of its steps."""
    x, feed["x"] = _sequences("x", 6)
    row = _fc(layers.sequence_pool(x, "average"), 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, kept = rnn.step_input(x), rnn.static_input(row)
        state = rnn.memory(shape=[6], value=0.5)
        rnn.update_memory(state, word * kept + state)
        rnn.output(state, kept, _fc(kept, 4, "tanh"))
    return rnn()


FUSED = {f.__name__: f for f in (
    simple, lstm, gru, attention, split_gates, no_state, dropped, mixed, static, masked,
    by_products, by_sums, in_other_forms, keys_in_every_step, one_source_for_all,
    states_of_states, swapped_states, kept_rows_as_results,
)}  # fmt: skip


# ---- loops that stay as they are ---------------------------------------------------------------------
def conv_in_step(feed):
    x, feed["x"] = _sequences("x", 16)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, state = rnn.step_input(x), None
        state = rnn.memory(shape=[16], value=0.0)
        image = layers.reshape(word + state, [-1, 1, 4, 4])
        new = layers.reshape(layers.conv2d(image, 1, 3, padding=1), [-1, 16])
        rnn.update_memory(state, new)
        rnn.output(new)
    return [rnn()]


def normed_over_batch(feed):
    x, feed["x"] = _sequences("x", 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, state = rnn.step_input(x), rnn.memory(shape=[6], value=0.0)
        new = word + state - layers.reduce_mean(state)
        rnn.update_memory(state, new)
        rnn.output(new)
    return [rnn()]


def spread_constant(feed):
    """ones [batch, 6] minus a column: the result is wider than the row that it comes from."""
    x, feed["x"] = _sequences("x", 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, state = rnn.step_input(x), rnn.memory(shape=[6], value=0.0)
        ones = layers.fill_constant_batch_size_like(word, [-1, 6], "float32", 1.0)
        new = word + layers.elementwise_sub(ones, _fc(state, 1), axis=0)
        rnn.update_memory(state, new)
        rnn.output(new)
    return [rnn()]


def stopped(feed):
    x, feed["x"] = _sequences("x", 6)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, state = rnn.step_input(x), rnn.memory(shape=[6], value=0.0)
        gate = layers.sigmoid(_fc(state, 6))
        gate.stop_gradient = True
        new = word * gate
        rnn.update_memory(state, new)
        rnn.output(new)
    return [rnn()]


def softmax_of_columns(feed):
    words, source, _ = _padded(feed)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 8], batch_ref=word)
        mixed = layers.softmax(layers.elementwise_add(source, layers.unsqueeze(state, [1])))
        new = _fc([word, layers.reduce_sum(mixed, dim=1)], 8)
        rnn.update_memory(state, new)
        rnn.step_output(new)
    return [rnn()]


def leaves_with_its_weights(feed):
    words, source, _ = _padded(feed)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 8], batch_ref=word)
        weights = layers.softmax(layers.matmul(layers.unsqueeze(state, [1]), source, transpose_y=True))
        new = _fc([word, layers.squeeze(layers.matmul(weights, source), [1])], 8, "tanh")
        rnn.update_memory(state, new)
        rnn.step_output(new)
        rnn.step_output(layers.scale(weights, 2.0))
    return rnn()


def same_in_every_step(feed):
    words, source, _ = _padded(feed)
    rnn = layers.StaticRNN()
    with rnn.step():
        word = rnn.step_input(words)
        state = rnn.memory(shape=[-1, 6], batch_ref=word)
        rnn.update_memory(state, word + state)
        rnn.step_output(state)
        rnn.step_output(layers.scale(source, 2.0))
    return rnn()


KEPT_AS_LOOPS = {
    "same_in_every_step": (same_in_every_step, "is the same in every step"),
    "softmax_of_columns": (softmax_of_columns, "softmax of"),
    "leaves_with_its_weights": (leaves_with_its_weights, "no row of the loop"),
    "conv_in_step": (conv_in_step, "not rows"),
    "normed_over_batch": (normed_over_batch, "not known to the row machine"),
    "spread_constant": (spread_constant, "spreads rows of 1 to 6"),
    "stopped": (stopped, "stops gradients"),
}


def _train(build, passes, steps=3):
    """(results, gradients, parameters, the first Plan with a loop) after some steps of SGD."""
    main, startup, feed = fluid.Program(), fluid.Program(), {}
    startup.random_seed = 5  # main's would give every step of a dropout the same mask
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        results = build(feed)
        terms = [layers.reduce_sum(r * (k + 1.0) + layers.square(r)) for k, r in enumerate(results)]
        loss = layers.scale(layers.sums(terms), 0.01)
        pairs = fluid.backward.append_backward(loss)
        given = [n + "@GRAD" for n in feed if main.global_block().has_var(n + "@GRAD")]
        fluid.optimizer.SGD(0.05).apply_gradients(pairs)
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    exe.passes = passes
    names = [g.name for _, g in pairs] + given
    out = []
    with fluid.scope_guard(scope):
        exe.run(startup)
        for _ in range(steps):
            got = exe.run(main, feed=feed, fetch_list=[loss, *results, *names], return_numpy=False)
            out.append([(np.asarray(v), v.lod()) for v in got])
        out.append([(np.asarray(scope.find_var(p.name).get_tensor()), []) for p, _ in pairs])
    plans = [p for p in exe._plans.values() if p.work is not None and any(n == "fuse_rnn" for n, _ in p.work.done)]
    return out, [len(results), names], plans[-1].work if plans else None


def _same(got, want, counts):
    for step, (a, b) in enumerate(zip(got, want, strict=True)):
        for k, ((x, x_lod), (y, y_lod)) in enumerate(zip(a, b, strict=True)):
            np.testing.assert_allclose(x, y, rtol=3e-4, atol=3e-5, err_msg=f"step {step}, value {k} of {counts}")
            assert x.shape == y.shape and (x_lod == y_lod or k > counts[0]), (step, k)


@pytest.mark.parametrize("name", list(FUSED))
def test_as_operator_by_operator(name):
    want, counts, _ = _train(FUSED[name], ())
    got, _, work = _train(FUSED[name], pipelines.PLAN)
    assert work is not None and work.counts().get("fuse_rnn") == 1 + (name == "masked"), work and work.explain()
    left = [op.type for op in work.block.ops]
    assert not {"while", "while_grad", "recurrent", "recurrent_grad"}.intersection(left)
    assert ("row_loop" in left) == (name != "no_state")
    _same(got, want, counts)


@pytest.mark.parametrize("name", list(KEPT_AS_LOOPS))
def test_what_stays_a_loop(name):
    build, why = KEPT_AS_LOOPS[name]
    want, counts, _ = _train(build, ())
    got, _, work = _train(build, pipelines.PLAN)
    assert "fuse_rnn" not in work.counts()
    assert any(why in text for pass_name, _, text in work.refused if pass_name == "fuse_rnn"), work.explain()
    _same(got, want, counts)


def test_padded_rows_of_another_batch_are_an_error():
    main, startup, feed = fluid.Program(), fluid.Program(), {}
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        results = by_products(feed)
    feed["source"], feed["count"] = feed["source"][:2], feed["count"][:2]
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        with pytest.raises(ShapeError, match=r"over 3 sequences .* rows of 7 numbers.*\[2, 5, 7\].* must be 3, or 1"):
            exe.run(main, feed=feed, fetch_list=results)


def test_without_a_gradient_and_with_other_lengths():
    main, startup, feed = fluid.Program(), fluid.Program(), {}
    startup.random_seed = 5  # main's would give every step of a dropout the same mask
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        results = attention(feed)
    outs = []
    for passes in ((), pipelines.PLAN):
        exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
        exe.passes = passes
        with fluid.scope_guard(scope):
            exe.run(startup)
            for lengths, kept in ((LENGTHS, KEPT), ([1], [3]), ([2, 6], [1, 1])):
                _, feed["x"] = _fresh("x", 6, lengths)
                _, feed["source"] = _fresh("source", 4, kept)
                _, feed["label"] = _fresh("label", 1, lengths, "int64")
                outs.append(np.asarray(exe.run(main, feed=feed, fetch_list=results, return_numpy=False)[0]))
    for a, b in zip(outs[:3], outs[3:]):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_dropout_draws_for_every_step_anew():
    main, startup, feed = fluid.Program(), fluid.Program(), {}
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        results = dropped(feed, 0.5)
    exe = fluid.Executor(fluid.CPUPlace())
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        runs = [np.asarray(exe.run(main, feed=feed, fetch_list=results, return_numpy=False)[1]) for _ in range(20)]
    zeros = np.stack(runs) == 0
    assert 0.4 < zeros.mean() < 0.6
    assert len({z.tobytes() for z in zeros}) == 20 and zeros.any(0).all()
    first = np.cumsum([0, *LENGTHS])[:-1]
    np.testing.assert_allclose(np.stack(runs)[:, first][~zeros[:, first]], 2.0)  # the first state is 1


def _fresh(name, width, lengths, dtype="float32"):
    with fluid.program_guard(fluid.Program()):
        return _sequences(name, width, lengths, dtype)
