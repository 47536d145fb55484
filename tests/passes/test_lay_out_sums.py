"""lay_out_sums: wide models with and without it, and where it stays away."""

import numpy as np
import pytest
from pass_programs import compare, types
from test_fuse_lookups import FEED, IDS, OPTIMIZERS, sequences, sums, vectors

import millstream.fluid as fluid

ONE = ["lookup_concat", "lookup_pool_concat"]


def trained(parts, optimizer="sgd", trained=True):
    total = fluid.layers.sums(parts)
    loss = fluid.layers.mean(fluid.layers.square(fluid.layers.fc(total, 2)))
    if trained:
        OPTIMIZERS[optimizer]().minimize(loss)
    return [loss, total]


def same(make, feed, steps=3):
    return types(compare(make, feed, steps, 1e-9, 1e-11))


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam", "lazy adam", "momentum", "clipped"])
@pytest.mark.parametrize("sparse", [True, False])
def test_training_stays(optimizer, sparse):
    feed = {k: v for k, v in FEED.items() if k != "dense"}
    found = same(lambda: trained(vectors(("t", "s", "t", "t"), sparse), optimizer), feed)
    assert "lookup_concat" in found and "lookup_concat_grad" in found and "lookup_table" not in found


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adam", "momentum"])
def test_sums_of_sequences(optimizer):
    found = same(lambda: trained(sums(("t", "t", "s")), optimizer), sequences([2, 0, 3, 1]))
    assert "lookup_pool_concat" in found and "lookup_pool_concat_grad" in found
    assert not {"lookup_table", "sequence_pool", "lookup_table_grad", "sequence_pool_grad", "scale"} & set(found)


def test_without_training_and_with_a_frozen_table():
    def frozen():
        parts = sums(("t", "frozen", "t"))
        fluid.default_main_program().global_block().var("frozen").stop_gradient = True
        return trained(parts)

    assert "lookup_pool_concat" in same(lambda: trained(sums(), trained=False), sequences([2, 3]))
    assert "lookup_pool_concat" in same(frozen, sequences([2, 3]))


@pytest.mark.parametrize("why", ["two", "fetched", "gradient fetched", "mixed", "read twice"])
def test_it_stays_away(why):
    def make():
        parts = vectors(("t", "s", "t", "t")[: 2 if why == "two" else 4])
        if why == "mixed":
            parts[0] = fluid.layers.scale(parts[0], 2.0)
        if why == "read twice":
            parts.append(parts[0])
        found = trained(parts)
        if why == "gradient fetched":
            return [*found, parts[1].name + "@GRAD"]
        return [*found, parts[1]] if why == "fetched" else found

    feed = {f"w{k}": FEED[f"w{k}"] for k in range(2 if why == "two" else 4)}
    assert not set(ONE) & set(same(make, feed))


def test_widths_that_differ_are_an_error_as_before():
    ids = fluid.data("wide", [None, 1], "int64")
    parts = [fluid.layers.embedding(ids, [IDS, width]) for width in (3, 3, 4)]
    with pytest.raises(Exception, match="sum"):
        exe = fluid.Executor()
        out = fluid.layers.sums(parts)
        exe.run(fluid.default_startup_program())
        exe.run(feed={"wide": np.zeros((2, 1), "int64")}, fetch_list=[out])
