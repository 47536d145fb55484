"""Each inference pass on a small program: it fires (or says why not) and the results stay."""

import os
import re

import numpy as np
import pytest
from inference_models import compare, optimised

import millstream.fluid as fluid
from millstream.fluid import layers
from millstream.passes import pipelines

RNG = np.random.RandomState(3)


def saved(folder, make):
    """Save what `make` returns, (feed, results), with random parameters; the feed."""
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 11
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(main, startup):
        feed, results = make()
        exe = fluid.Executor()
        exe.run(startup)
        for p in main.all_parameters():
            tensor = fluid.global_scope().find_var(p.name).get_tensor()
            tensor.set(RNG.uniform(0.3, 0.9, p.shape).astype("float32") - 0.4 * (p.name.endswith("w_0")), fluid.CPUPlace())
        fluid.io.save_inference_model(str(folder), list(feed), list(results), exe, main_program=main)
    return feed


def fired(folder, make, names=pipelines.INFER, **bounds):
    work = compare(str(folder), saved(folder, make), names, **bounds)
    return work.counts(), [op.type for op in work.block.ops], work


def draw(*shape):
    return RNG.uniform(-1, 1, shape).astype("float32")


def own(types):
    return [t for t in types if t not in ("feed", "fetch")]


def ragged(lengths, *width, dtype="float32"):
    values = RNG.randint(0, 9, (sum(lengths), *width)) if dtype == "int64" else RNG.uniform(-1, 1, (sum(lengths), *width))
    return fluid.create_lod_tensor(values.astype(dtype), [lengths], fluid.CPUPlace())


def image(channels=4, side=6):
    x = fluid.data("x", [None, channels, side, side])
    return x, {"x": draw(2, channels, side, side)}


# ---- convolutions --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["conv2d", "grouped", "conv2d_transpose", "grouped_transpose", "conv3d"])
def test_batch_norm_goes_into_the_convolution(tmp_path, kind):
    def make():
        x, feed = image()
        groups = 2 if "grouped" in kind else 1
        if kind == "conv3d":
            y = layers.conv3d(layers.unsqueeze(x, [2]), 6, 1, bias_attr=True)
        elif "transpose" in kind:
            y = layers.conv2d_transpose(x, 6, filter_size=3, groups=groups)
        else:
            y = layers.conv2d(x, 6, 3, groups=groups)
        return feed, [layers.batch_norm(y, is_test=True)]

    counts, types, work = fired(tmp_path, make)
    assert counts["fold_conv_bn"] == 1 and "batch_norm" not in types
    assert len(work.values) == 2 and "batch_norm_0.w_1" not in work.block.vars


def test_bias_residual_and_activation_become_one_convolution(tmp_path):
    def make():
        x, feed = image()
        y = layers.batch_norm(layers.conv2d(x, 4, 3, padding=1, bias_attr=False), is_test=True)
        z, w = layers.conv2d(x, 3, 1), layers.conv2d(x, 3, 1)
        return feed, [layers.relu(y + x), layers.leaky_relu(z, 0.2), layers.relu6(w)]

    counts, types, _ = fired(tmp_path, make)
    assert own(types) == ["packed_conv2d"] * 3 and counts["pack_conv"] == 3
    assert counts["fuse_conv_residual"] == 1 and counts["fuse_conv_activation"] == 3


def test_folding_without_values_says_so():
    from millstream import passes

    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup):
        x = fluid.data("x", [None, 3, 8, 8])
        out = layers.batch_norm(layers.conv2d(x, 4, 3), is_test=True)
    work = passes.optimize(main, ["x"], [out.name], None, ("fold_conv_bn",))
    assert "'conv2d_0.w_0' is not known, or may change" in work.explain()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_packed_convolution_by_itself(dtype):
    main = fluid.Program()
    with fluid.program_guard(main):
        block, names = main.global_block(), {}
        shapes = {"Input": [2, 4, 7, 6], "Filter": [6, 2, 3, 3], "Bias": [6], "ResidualData": [2, 6, 4, 3]}
        for slot, shape in shapes.items():
            names[slot] = fluid.data(slot.lower(), shape, dtype)
        attrs = {"strides": [2, 2], "paddings": [1, 1], "dilations": [1, 1], "groups": 2}
        want, got = (block.create_var(name=n, dtype=dtype) for n in ("want", "got"))
        plain = {**attrs, "fuse_relu": True, "fuse_residual_connection": True, "use_mkldnn": True}
        block.append_op("conv2d", names, {"Output": want}, plain)
        block.append_op("packed_conv2d", names, {"Output": got}, {**attrs, "activation": "relu"})
    feed = {v.name: draw(*v.shape).astype(dtype) for v in names.values()}
    a, b = fluid.Executor().run(main, feed=feed, fetch_list=[want, got])
    assert b.shape == (2, 6, 4, 3)
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name,wrong", [("strides", [0, 1]), ("dilations", [0, 0]), ("groups", 0), ("paddings", [-9, 0])])
def test_damaged_attributes_raise_instead_of_ending_the_process(name, wrong):
    main = fluid.Program()
    with fluid.program_guard(main):
        x, w = fluid.data("x", [1, 4, 6, 6]), fluid.data("w", [2, 4, 3, 3])
        out = main.global_block().create_var(name="out")
        attrs = {"strides": [1, 1], "paddings": [0, 0], "dilations": [1, 1], "groups": 1}
        op = main.global_block().append_op("packed_conv2d", {"Input": x, "Filter": w}, {"Output": out}, attrs)
    op._set_attr(name, wrong)
    with pytest.raises(fluid.core.EnforceNotMet):
        fluid.Executor().run(main, feed={"x": draw(1, 4, 6, 6), "w": draw(2, 4, 3, 3)}, fetch_list=[out])


def test_what_paddlepaddle_can_not_run_fused_stays(tmp_path):
    def make():
        x, feed = image()
        y = layers.conv2d(x, 4, 3, padding=1, bias_attr=False)
        z = layers.conv2d(x, 4, 3, dilation=2, padding=2, bias_attr=False)
        return feed, [layers.tanh(layers.conv2d(x, 3, 1)), layers.relu(y + z), layers.relu(z * 2.0) + layers.exp(y)]

    counts, types, work = fired(tmp_path, make, pipelines.FLUID_ONEDNN)
    assert counts["fuse_conv_bias"] == 1 and "tanh" in types and "fuse_conv_residual" not in counts
    assert "oneDNN's convolution in PaddlePaddle has no tanh" in work.explain()


# ---- attention and normalisation -----------------------------------------------------------------------
@pytest.mark.parametrize("turned", [None, [0, 1, 3, 2], [0, 2, 3, 1]])
def test_attention(tmp_path, turned):
    def make():
        x = fluid.data("x", [None, 5, 8])
        mask = fluid.data("m", [None, 2, 5, 5])

        def heads(name, axis=(0, 2, 1, 3)):
            rows = layers.fc(x, 8, num_flatten_dims=2, name=name)
            return layers.transpose(layers.reshape(rows, [0, 0, 2, 4]), list(axis))

        q, v = heads("q"), heads("v")
        k = heads("k", [0, 2, 3, 1]) if turned == [0, 2, 3, 1] else heads("k")
        if turned == [0, 1, 3, 2]:
            scores = layers.scale(layers.matmul(q, layers.transpose(k, turned)), 0.5)
        elif turned:
            scores = layers.matmul(q, k, alpha=0.5)
        else:
            scores = layers.matmul(layers.scale(q, 0.5), k, transpose_y=True)
        weights = layers.dropout(layers.softmax(scores + mask), 0.1, dropout_implementation="upscale_in_train")
        out = layers.reshape(layers.transpose(layers.matmul(weights, v), [0, 2, 1, 3]), [0, 0, 8])
        return {"x": draw(3, 5, 8), "m": draw(3, 2, 5, 5)}, [out]

    counts, types, work = fired(tmp_path, make)
    assert counts["fuse_attention"] == 1 and counts["fuse_attention_heads"] == 1
    assert own(types) == ["fc", "fc", "fc", "fused_attention"]
    assert "refused" not in work.explain()


def test_attention_with_read_weights_stays(tmp_path):
    def make():
        x = fluid.data("x", [None, 5, 8])
        weights = layers.softmax(layers.matmul(x, x, transpose_y=True))
        return {"x": draw(3, 5, 8)}, [layers.matmul(weights, x), weights]

    counts, _, work = fired(tmp_path, make)
    assert "fuse_attention" not in counts and "fuse_attention refused" in work.explain()


@pytest.mark.parametrize("form,parts", [
    ("sqrt", "gb"), ("rsqrt", "gb"), ("pow", "gb"), ("operator", "g"), ("pow", "b"), ("rsqrt", ""), ("minus", ""),
])  # fmt: skip
def test_layer_norm_of_primitives(tmp_path, form, parts):
    def make():
        x = fluid.data("x", [None, 5, 8])
        centred = layers.elementwise_sub(x, layers.reduce_mean(x, dim=[2], keep_dim=True), axis=0)
        if form == "sqrt":
            square = layers.square(centred)
        else:
            square = {"rsqrt": lambda: centred * centred, "operator": lambda: centred**2}.get(
                form, lambda: layers.pow(centred, 2.0)
            )()
        safe = layers.reduce_mean(square, dim=[2], keep_dim=True) + 1e-3
        if form == "operator":
            y = centred / safe**0.5
        elif form == "minus":
            y = centred * layers.pow(safe, -0.5)
        elif form == "rsqrt":
            y = layers.elementwise_mul(centred, layers.rsqrt(safe), axis=0)
        else:
            y = layers.elementwise_div(centred, layers.sqrt(safe) if form == "sqrt" else layers.pow(safe, 0.5), axis=0)
        gain, shift = (layers.create_parameter([8], "float32", name=n) for n in ("g", "b"))
        y = y * gain if "g" in parts else y
        return {"x": draw(3, 5, 8)}, [y + shift if "b" in parts else y]

    counts, types, _ = fired(tmp_path, make)
    assert counts["fuse_layer_norm"] == 1 and own(types) == ["layer_norm"]


def test_sums_before_layer_norm(tmp_path):
    def make():
        ids = fluid.data("i", [None, 4, 1], "int64")
        word, place = (layers.embedding(ids, [9, 6], param_attr=n, padding_idx=p) for n, p in (("w", 2), ("p", None)))
        x = layers.layer_norm(word + place, begin_norm_axis=2)
        y = layers.layer_norm(layers.fc(x, 6, num_flatten_dims=2) + x, begin_norm_axis=2)
        return {"i": RNG.randint(0, 9, (3, 4, 1)).astype("int64")}, [y]

    counts, types, _ = fired(tmp_path, make)
    assert counts["fuse_embedding_layer_norm"] == 1 and counts["fuse_add_layer_norm"] == 1
    assert own(types) == ["fused_embedding_layer_norm", "fc", "fused_add_layer_norm"]


# ---- recurrent layers and sequences ----------------------------------------------------------------------
def recurrent(kind, embedded, reverse=False):
    def make():
        if embedded:
            x = layers.embedding(fluid.data("x", [None, 1], "int64", lod_level=1), [9, 5])
        else:
            x = fluid.data("x", [None, 5], lod_level=1)
        if kind == "gru":
            out = [layers.dynamic_gru(layers.fc(x, 12), 4, is_reverse=reverse)]
        else:
            out = layers.dynamic_lstm(layers.fc(x, 16), 16, is_reverse=reverse, use_peepholes=reverse)
        return {"x": ragged([3, 1, 4], 1, dtype="int64") if embedded else ragged([3, 1, 4], 5)}, list(out)

    return make


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind,embedded,names,last", [
    ("gru", False, pipelines.FLUID, "fusion_gru"), ("gru", False, pipelines.INFER, "projected_gru"),
    ("gru", True, pipelines.INFER, "gru"), ("lstm", False, pipelines.FLUID, "fusion_lstm"),
    ("lstm", True, pipelines.FLUID, "fused_embedding_fc_lstm"),
])  # fmt: skip
def test_recurrent_layers_with_their_projection(tmp_path, kind, embedded, names, last, reverse):
    _, types, _ = fired(tmp_path, recurrent(kind, embedded, reverse), names)
    assert own(types) == (["lookup_table"] if last == "gru" else []) + [last]


def test_sequence_convolution(tmp_path):
    def make():
        x = fluid.data("x", [None, 5], lod_level=1)
        return {"x": ragged([3, 1, 4], 5)}, [layers.sequence_conv(x, 6, 3, act="relu")]

    assert fired(tmp_path, make)[1].count("fusion_seqconv_eltadd_relu") == 1


@pytest.mark.parametrize("pool", ["sum", "average", "sqrt", "max"])
def test_pools_side_by_side(tmp_path, pool):
    def make():
        xs = [fluid.data(n, [None, 3], lod_level=1) for n in "abc"]
        pooled = layers.concat([layers.sequence_pool(x, pool) for x in xs], axis=1)
        return {n: ragged([2, 3], 3) for n in "abc"}, [layers.fc(pooled, 2)]

    counts, _, work = fired(tmp_path, make)
    assert counts.get("fuse_seqpool_concat", 0) == (pool != "max")
    assert pool != "max" or "they must be one of SUM" in work.explain()


@pytest.mark.parametrize("kept", [True, False, None])
def test_pools_with_shows_and_clicks(tmp_path, kept):
    def make():
        xs = [fluid.data(n, [None, 4], lod_level=1) for n in "abc"]
        counts = fluid.data("counts", [None, 2])
        pools = [layers.sequence_pool(layers.abs(x), "sum") for x in xs]
        ways = [True, False, True] if kept is None else [kept] * 3
        pools = [layers.continuous_value_model(p, counts, way) for p, way in zip(pools, ways)]
        return {**{n: ragged([2, 3], 4) for n in "abc"}, "counts": draw(2, 2)}, [layers.concat(pools, axis=1)]

    counts, types, work = fired(tmp_path, make)
    assert counts.get("fuse_seqpool_concat", 0) == (kept is not None) and ("cvm" in types) == (kept is None)
    assert kept is not None or "some shows and clicks are kept, others not" in work.explain()


def test_expanded_rows_before_a_layer(tmp_path):
    def make():
        x, row = fluid.data("x", [None, 4], lod_level=1), fluid.data("r", [None, 3])
        joint = layers.concat([x, layers.sequence_expand(row, x)], axis=1)
        feed = {"x": ragged([2, 3], 4), "r": draw(2, 3)}
        return feed, [layers.fc(joint, 5, act="relu")]

    assert fired(tmp_path, make)[0]["fuse_seqexpand_concat_fc"] == 1


# ---- dense and clean-up ----------------------------------------------------------------------------------
def test_layers_in_a_row(tmp_path):
    def make():
        x = fluid.data("x", [None, 4])
        w, b = layers.create_parameter([5, 3], "float32"), layers.create_parameter([3], "float32", is_bias=True)
        y = layers.fc(layers.fc(layers.fc(x, 6, act="relu"), 7, act="relu"), 5, act="relu")
        return {"x": draw(3, 4)}, [layers.matmul(y, w) + b]

    _, types, _ = fired(tmp_path, make)
    assert own(types) == ["fusion_repeated_fc_relu", "fc"]


def test_elementwise_chain(tmp_path):
    def make():
        x, y = fluid.data("x", [None, 3, 4]), fluid.data("y", [None, 3, 4])
        row = layers.create_parameter([3], "float32")
        t = layers.elementwise_mul(layers.relu(layers.scale(x, 2.0, 0.5)), row, axis=1)
        t = layers.swish(layers.leaky_relu(layers.tanh(layers.elementwise_sub(t, y)), 0.1), 1.5)
        return {"x": draw(2, 3, 4), "y": draw(2, 3, 4)}, [layers.relu6(layers.square(t) * y), x * x + layers.exp(x)]

    counts, types, _ = fired(tmp_path, make)
    assert counts["fuse_elementwise"] == 2 and own(types).count("fused_elementwise") == 2 and own(types).count("exp") == 1


def test_a_chain_that_is_read_in_the_middle_stays_in_two(tmp_path):
    def make():
        x = fluid.data("x", [None, 4])
        middle = layers.tanh(layers.relu(x))
        return {"x": draw(3, 4)}, [layers.exp(layers.sigmoid(middle)), middle]

    assert fired(tmp_path, make)[0]["fuse_elementwise"] == 2


def test_clean_up(tmp_path):
    def make():
        x = fluid.data("x", [None, 4])
        constant = layers.sqrt(layers.fill_constant([4], "float32", 4.0) * 4.0)
        y = layers.cast(layers.transpose(layers.reshape(layers.scale(x), [-1, 4]), [0, 1]), "float32")
        y = layers.dropout(layers.assign(y), 0.5)
        return {"x": draw(3, 4)}, [layers.exp(y) * constant + layers.exp(y), y]

    counts, types, _ = fired(tmp_path, make)
    assert sorted(own(types)) == ["exp", "fused_elementwise", "scale"]
    assert counts["merge_common"] == 1 and counts["fold_constants"] == 3


def test_blocks_inside_are_optimised_too(tmp_path):
    def make():
        x, n = fluid.data("x", [None, 4]), layers.fill_constant([1], "int64", 3)
        i = layers.fill_constant([1], "int64", 0)

        def body(i, y):
            y = layers.scale(layers.fc(y, 4, act="relu", param_attr="shared.w_0"), 1.0)
            return [layers.increment(i, in_place=False), y + layers.sqrt(layers.ones([4], "float32"))]

        _, y = layers.while_loop(lambda i, y: layers.less_than(i, n), body, [i, layers.relu(x)])
        return {"x": draw(3, 4)}, [y]

    counts, _, work = fired(tmp_path, make)
    inner = [op.type for op in work.program.block(1).ops]
    assert "fc" in inner and "mul" not in inner and "scale" not in inner and "sqrt" not in inner
    assert counts["fuse_fc_relu"] == 1 and os.path.exists(os.path.join(str(tmp_path), "optimised", "__model__"))


def test_the_users_program_stays(tmp_path):
    saved(tmp_path, recurrent("lstm", True))
    with fluid.scope_guard(fluid.Scope()):
        _, _, _, program = optimised(str(tmp_path))
        assert [op.type for op in program.global_block().ops] == ["feed", "lookup_table", "mul", "elementwise_add", "lstm",
                                                                  "scale", "scale", "fetch", "fetch"]  # fmt: skip


# ---- memory ------------------------------------------------------------------------------------------
def residual(kind):
    """A convolution plus another one's result, which is read elsewhere in one of several ways."""

    def make():
        x, feed = image()
        y = layers.conv2d(x, 4, 3, padding=1)
        z = layers.conv2d(layers.conv2d(y, 4, 3, padding=1), 4, 3, padding=1)
        out = [layers.relu(z + (x if kind == "fed" else y))]
        if kind == "later":
            out.append(layers.conv2d(layers.concat([y, out[0]], 1), 2, 1))
        if kind == "fetched":
            out.append(y)
        if kind == "view":
            out.append(layers.reshape(y, [0, -1]))
        return feed, out

    return make


@pytest.mark.parametrize(("kind", "why"), [
    ("plain", None), ("fed", "is fetched, fed"), ("later", "is read later"), ("fetched", "is fetched, fed"),
    ("view", "something else may share the memory|is read later"),
])  # fmt: skip
def test_a_sum_takes_the_memory_of_its_operand(tmp_path, kind, why):
    counts, _, work = fired(tmp_path, residual(kind))
    assert counts.get("reuse_memory", 0) == (why is None)
    refused = [text for name, _, text in work.refused if name == "reuse_memory"]
    assert bool(refused) == (why is not None) and all(re.search(why, text) for text in refused)
    assert "freed after their last reader" in work.explain()
