"""fuse_lookups and skip_row_merge: training steps with and without them, and where they stay away."""

import numpy as np
import pytest
from pass_programs import build, compare, run, types

import millstream.fluid as fluid

RNG = np.random.RandomState(7)
ROWS, IDS = 6, 9
FEED = {f"w{k}": RNG.randint(0, IDS, (ROWS, 1)).astype("int64") for k in range(4)}
IDS_ONLY = dict(FEED)
FEED["dense"] = RNG.randn(ROWS, 3).astype("float64")

OPTIMIZERS = {
    "sgd": lambda: fluid.optimizer.SGD(0.1),
    "adagrad": lambda: fluid.optimizer.Adagrad(0.1, epsilon=1e-3),
    "momentum": lambda: fluid.optimizer.Momentum(0.1, 0.9),
    "rmsprop": lambda: fluid.optimizer.RMSProp(0.1, epsilon=1e-3),
    "adam": lambda: fluid.optimizer.Adam(0.1, epsilon=1e-3),
    "lazy adam": lambda: fluid.optimizer.Adam(0.1, epsilon=1e-3, lazy_mode=True),
    "clipped": lambda: fluid.optimizer.SGD(0.1, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.1)),
    "decayed": lambda: fluid.optimizer.SGD(0.1, regularization=fluid.regularizer.L2Decay(0.1)),
}


def vectors(tables=("t",) * 4, sparse=True, layer=fluid.layers.embedding, shape=(None, 1), **how):
    """A lookup for each of `tables`, which share the ids' tables by name."""
    found = []
    for k, table in enumerate(tables):
        ids = fluid.data(f"w{k}", list(shape), "int64")
        attr = fluid.ParamAttr(name=table)
        found.append(layer(ids, [IDS, 5], is_sparse=sparse, param_attr=attr, dtype="float64", **how))
    return found


def loss_of(parts, axis=1):
    x = fluid.layers.concat(parts, axis)
    return fluid.layers.mean(fluid.layers.square(fluid.layers.fc(x, 2)))


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_training_stays(optimizer, sparse):
    def make():
        loss = loss_of([*vectors(sparse=sparse), fluid.data("dense", [None, 3], "float64")])
        OPTIMIZERS[optimizer]().minimize(loss)
        return [loss]

    found = types(compare(make, FEED, steps=4, rtol=1e-9, atol=1e-11))
    assert found.count("lookup_concat") == found.count("lookup_concat_grad") == 1
    assert not {"lookup_table", "lookup_table_grad", "concat", "concat_grad"} & set(found)
    assert ("join_rows" in found) == (sparse and optimizer in ("sgd", "adagrad", "adam", "lazy adam"))


@pytest.mark.parametrize("sparse", [True, False])
def test_tables_of_different_kinds_and_columns_between_them(sparse):
    def make():
        a, b, c, d = vectors(("t", "s", "t", "t"), sparse, padding_idx=3)
        dense = fluid.data("dense", [None, 3], "float64")
        dense.stop_gradient = False
        loss = loss_of([a, fluid.layers.scale(dense, 2.0), b, c, d], -1)
        fluid.optimizer.Adagrad(0.1, epsilon=1e-3).minimize(loss)
        return [loss, dense.name + "@GRAD"]

    found = types(compare(make, FEED, steps=3, rtol=1e-9, atol=1e-11))
    assert "lookup_concat" in found and "lookup_table" not in found


def test_ids_without_the_last_dimension():
    def make():
        parts = vectors(layer=fluid.embedding, shape=(None, 2))
        loss = fluid.layers.mean(fluid.layers.square(fluid.layers.fc(fluid.layers.concat(parts, 2), 2, num_flatten_dims=2)))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    feed = {f"w{k}": RNG.randint(0, IDS, (ROWS, 2)).astype("int64") for k in range(4)}
    assert "lookup_concat_grad" in types(compare(make, feed, steps=3, rtol=1e-9, atol=1e-11))


@pytest.mark.parametrize("trained", [True, False])
def test_a_frozen_table_and_a_test_program(trained):
    def make():
        a, b, c, d = vectors(("t", "frozen", "t", "frozen"))
        fluid.default_main_program().global_block().var("frozen").stop_gradient = True
        loss = loss_of([a, b, c, d])
        if trained:
            fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    assert "lookup_concat" in types(compare(make, IDS_ONLY, steps=2, rtol=1e-9, atol=1e-11))


def test_a_vector_that_somebody_else_reads_stays_one():
    def make():
        a, b, c, _ = vectors()
        loss = loss_of([a, b, c]) + fluid.layers.mean(a)
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss, b]

    found = types(compare(make, IDS_ONLY, steps=3, rtol=1e-9, atol=1e-11))
    assert found.count("lookup_table") == 3  # the fourth is dead


def test_gradients_that_are_fetched():
    """The sum of a table's gradients has each row once, in order, and so it stays."""

    def make():
        parts = vectors()
        loss = loss_of(parts)
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss, "t@GRAD"]

    main, startup, fetches = build(make)
    exe, found = fluid.Executor(), []
    for passes in ((), exe.passes):
        exe, scope = fluid.Executor(), fluid.Scope()
        exe.passes = passes
        with fluid.scope_guard(scope):
            exe.run(startup)
            found.append(exe.run(main, IDS_ONLY, fetches, return_numpy=False)[1])
    assert found[0].rows() == found[1].rows() == sorted(set(np.concatenate([FEED[f"w{k}"] for k in range(4)]).ravel()))
    np.testing.assert_allclose(*(np.asarray(f.get_tensor()) for f in found), rtol=1e-12)


def test_places_that_stay():
    def sequences():
        parts = [
            fluid.layers.embedding(fluid.data(f"w{k}", [None, 1], "int64", lod_level=1), [IDS, 5], dtype="float64")
            for k in range(2)
        ]
        return [fluid.layers.concat(parts, 1)]

    def rows():
        return [fluid.layers.concat(vectors(), 0)]

    def two_gradients():
        a, b, *_ = vectors()
        x = fluid.layers.concat([a, b], 1)
        first = fluid.gradients(fluid.layers.mean(fluid.layers.square(x)), [a])[0]
        return [fluid.layers.mean(x), first]

    for make in (sequences, rows, two_gradients):
        main, startup, fetches = build(make)
        feed = {k: v for k, v in FEED.items() if main.global_block().has_var(k)}
        assert "lookup_concat" not in types(run(main, startup, feed, fetches)[2])


def test_an_id_that_is_out_of_range():
    main, startup, fetches = build(lambda: [fluid.layers.concat(vectors(), 1)])
    with pytest.raises(Exception, match="received 99") as caught:
        run(main, startup, {**IDS_ONLY, "w2": np.full((ROWS, 1), 99, "int64")}, fetches)
    assert "test_fuse_lookups.py" in str(caught.value)


@pytest.mark.parametrize("layer", [fluid.layers.embedding, fluid.embedding])
def test_an_empty_batch(layer):
    def make():
        shape = (None, 1) if layer is fluid.layers.embedding else (None, 2)
        x = fluid.layers.concat(vectors(layer=layer, shape=shape), -1)
        loss = fluid.layers.reduce_sum(fluid.layers.square(x))
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [x, loss]

    width = 1 if layer is fluid.layers.embedding else 2
    feed = {f"w{k}": np.zeros((0, width), "int64") for k in range(4)}
    assert "lookup_concat_grad" in types(compare(make, feed, steps=2))


def test_many_rows_are_added_in_place():
    """Enough of them that the loop in kernels/rows.py takes over."""
    ids = {f"w{k}": RNG.randint(0, IDS, (300, 1)).astype("int64") for k in range(4)}

    def make():
        loss = loss_of(vectors())
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    assert "join_rows" in types(compare(make, ids, steps=3, rtol=1e-9, atol=1e-11))


# ---- with sums of sequences between -----------------------------------------------------------------
def sequences(lengths, count=3):
    """A feed of `count` slots with sequences of `lengths` in some order."""
    feed = {}
    for k in range(count):
        sizes = RNG.permutation(lengths).tolist()
        ids = RNG.randint(0, IDS, (sum(sizes), 1)).astype("int64")
        feed[f"w{k}"] = fluid.create_lod_tensor(ids, [sizes], fluid.CPUPlace())
    return feed


def sums(tables=("t", "t", "t"), sparse=True, kind="sum", **how):
    found = []
    for k, table in enumerate(tables):
        ids = fluid.data(f"w{k}", [None, 1], "int64", lod_level=1)
        attr = fluid.ParamAttr(name=table)
        rows = fluid.layers.embedding(ids, [IDS, 5], is_sparse=sparse, param_attr=attr, dtype="float64", **how)
        found.append(fluid.layers.sequence_pool(rows, kind))
    return found


POOLED = ["lookup_pool_concat", "lookup_pool_concat_grad"]


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam", "lazy adam", "momentum"])
def test_sums_of_sequences(optimizer, sparse):
    def make():
        a, b, c = sums(("t", "s", "t"), sparse)
        dense = fluid.data("dense", [None, 3], "float64")
        dense.stop_gradient = False
        loss = loss_of([a, fluid.layers.scale(dense, 2.0), b, c])
        OPTIMIZERS[optimizer]().minimize(loss)
        return [loss, dense.name + "@GRAD"]

    feed = {**sequences([2, 0, 3, 1]), "dense": FEED["dense"][:4]}
    found = types(compare(make, feed, steps=4, rtol=1e-9, atol=1e-11))
    assert [found.count(t) for t in POOLED] == [1, 1]
    assert not {"lookup_table", "lookup_table_grad", "sequence_pool", "sequence_pool_grad", "concat"} & set(found)


@pytest.mark.parametrize("trained", [True, False])
def test_sums_over_a_frozen_table(trained):
    def make():
        parts = sums(("t", "frozen", "t"))
        fluid.default_main_program().global_block().var("frozen").stop_gradient = True
        loss = loss_of(parts)
        if trained:
            fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss]

    assert POOLED[0] in types(compare(make, sequences([2, 3]), steps=2, rtol=1e-9, atol=1e-11))


def test_sums_of_two_levels_keep_the_outer_one():
    def make():
        return [fluid.layers.concat(sums(), 1)]

    feed = {}
    for k in range(3):
        ids = RNG.randint(0, IDS, (6, 1)).astype("int64")
        feed[f"w{k}"] = fluid.create_lod_tensor(ids, [[2, 1], [3, 1, 2]], fluid.CPUPlace())
    main, startup, fetches = build(make)
    found = []
    for passes in ((), fluid.Executor().passes):
        exe, scope = fluid.Executor(), fluid.Scope()
        exe.passes = passes
        with fluid.scope_guard(scope):
            exe.run(startup)
            found.append(exe.run(main, feed, fetches, return_numpy=False)[0])
    assert found[0].lod() == found[1].lod() == [[0, 2, 3]]
    np.testing.assert_allclose(np.asarray(found[1]), np.asarray(found[0]), rtol=1e-12)


@pytest.mark.parametrize("how", ["average", "padded", "rows are read"])
def test_other_sums_stay(how):
    def make():
        parts = sums(kind="average") if how == "average" else sums(padding_idx=2) if how == "padded" else sums()
        x = fluid.layers.concat(parts, 1)
        block = fluid.default_main_program().global_block()
        read = [op.output("Out")[0] for op in block.ops if op.type == "lookup_table"] if how == "rows are read" else []
        loss = fluid.layers.mean(x)
        fluid.optimizer.SGD(0.1).minimize(loss)
        return [loss, *read]

    assert POOLED[0] not in types(compare(make, sequences([2, 3, 1]), steps=2, rtol=1e-9, atol=1e-11))


@pytest.mark.parametrize(("change", "message"), [
    ({"w1": np.zeros((4, 1), "int64")}, "must have a LoD"),
    ({"w1": fluid.create_lod_tensor(np.zeros((4, 1), "int64"), [[4]], None)}, r"as many sequences, received \[2, 1, 2\]"),
    ({"w1": fluid.create_lod_tensor(np.full((4, 1), 99, "int64"), [[3, 1]], None)}, "from 0 to 8, received 99"),
])  # fmt: skip
def test_mistakes_in_sequences(change, message):
    main, startup, fetches = build(lambda: [fluid.layers.concat(sums(), 1)])
    with pytest.raises(Exception, match=message) as caught:
        run(main, startup, {**sequences([2, 3]), **change}, fetches)
    assert "test_fuse_lookups.py" in str(caught.value)
