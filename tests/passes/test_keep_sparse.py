"""keep_sparse: training steps with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import build, compare, types

import millstream.fluid as fluid

RNG = np.random.RandomState(3)
IDS, WIDTH, ROWS = 4096, 64, 7
FEED = {f"w{k}": np.append(RNG.randint(0, IDS, (ROWS - 2, 1)), [[5], [5]], 0) for k in range(3)}
OPTIMIZERS = {
    "sgd": lambda: fluid.optimizer.SGD(0.5),
    "adagrad": lambda: fluid.optimizer.Adagrad(0.1, epsilon=1e-3),
    "momentum": lambda: fluid.optimizer.Momentum(0.1, 0.9),
    "adam": lambda: fluid.optimizer.Adam(0.1, epsilon=1e-3),
    "decayed": lambda: fluid.optimizer.SGD(0.1, regularization=fluid.regularizer.L2Decay(0.1)),
    "clipped": lambda: fluid.optimizer.SGD(0.1, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.1)),
}


def ids(k=0):
    return fluid.data(f"w{k}", [None, 1], "int64")


def vectors(k=0, layer=fluid.layers.embedding, name="t", **how):
    how.setdefault("size", [IDS, WIDTH])
    return layer(ids(k), param_attr=fluid.ParamAttr(name=name), dtype="float64", **how)


def same(make, steps=3):
    main, _, _ = build(make)
    return compare(make, {k: v for k, v in FEED.items() if k in main.global_block().vars}, steps, 1e-9, 1e-12)


def kinds(plan):
    block = plan.work.block
    return [block._find_var_recursive(op.input("Grad")[0]).type.name for op in block.ops if op.type in ("sgd", "adagrad")]


def trained(x, optimizer="sgd"):
    loss = fluid.layers.mean(fluid.layers.square(x))
    OPTIMIZERS[optimizer]().minimize(loss)
    return [loss]


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_training_stays(optimizer):
    plan = same(lambda: trained(vectors(), optimizer))
    if optimizer in ("sgd", "adagrad"):
        assert kinds(plan) == ["SELECTED_ROWS"]
    else:
        assert "SELECTED_ROWS" not in kinds(plan)


def test_parts_of_one_table_are_added_as_rows():
    def make():
        return trained(fluid.layers.fc(vectors(0) * vectors(1), 3) + fluid.layers.fc(vectors(2), 3))

    plan = same(make)
    assert "SELECTED_ROWS" in kinds(plan) and "join_rows" in types(plan)


def test_lookups_of_one_concat_are_joined_first():
    def make():
        return trained(fluid.layers.concat([vectors(k, layer=fluid.embedding) for k in range(3)], 1), "adagrad")

    plan = same(make)
    assert kinds(plan) == ["SELECTED_ROWS"]


@pytest.mark.parametrize("loss", ["nce", "hsigmoid"])
def test_losses_that_score_some_classes(loss):
    def make():
        x = fluid.data("x", [None, WIDTH], "float64")
        if loss == "nce":
            cost = fluid.layers.nce(x, ids(), IDS, num_neg_samples=4, seed=3, sampler="log_uniform")
        else:
            cost = fluid.layers.hsigmoid(x, ids(), IDS + 1)
        return trained(cost)

    feed = {"x": RNG.randn(ROWS, WIDTH), "w0": FEED["w0"]}
    assert "SELECTED_ROWS" in kinds(compare(make, feed, steps=3, rtol=1e-9, atol=1e-12))


@pytest.mark.parametrize("why", ["small", "padded", "fetched", "mixed"])
def test_it_stays_away(why):
    def make():
        if why == "small":
            return trained(vectors(size=[IDS, 8]))
        if why == "padded":
            return trained(vectors(padding_idx=5))
        if why == "fetched":
            return [*trained(vectors()), "t@GRAD"]
        whole = fluid.layers.matmul(vectors(1), vectors(), transpose_y=True)
        table = fluid.default_main_program().global_block().var("t")
        return trained(fluid.layers.reduce_sum(whole) + fluid.layers.reduce_mean(table))

    assert set(kinds(same(make, 2))) == {"LOD_TENSOR"}
