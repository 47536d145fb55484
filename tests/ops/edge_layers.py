"""Batches of one and empty sequences for operators that the golden cases leave out; runs on PaddlePaddle 1.8.5 too.

<python with 1.8.5> tests/ops/edge_layers.py > tests/ops/edge_layers.json
"""

import json
import sys

import numpy as np


def cases(fluid):
    """{name: (makes the layer, feeds)}."""
    L = fluid.layers
    random = np.random.RandomState(0)

    def rand(*shape):
        return random.randn(*shape).astype("float32")

    def tensor(values, lengths):
        return fluid.create_lod_tensor(np.ascontiguousarray(values), lengths, fluid.CPUPlace())

    def data(name, shape, dtype="float32", level=0):
        return L.data(name, shape, dtype=dtype, lod_level=level, append_batch_size=False)

    def sequences(width):
        return data("x", [-1, width], level=1)

    boxes = np.array([[-5, -3, 40, 50], [2, 3, 8, 9]], "float32")
    rois = np.array([[0, 0, 4, 4], [1, 1, 5, 5]], "float32")
    with_gap = tensor(rand(3, 2), [[1, 0, 2]])
    info = np.array([[20, 30, 1]], "float32")
    top = fluid.contrib.layers.sequence_topk_avg_pooling
    one = np.array([[1]], "int64")
    return {
        "box_clip": (lambda: L.box_clip(sequences(4), data("i", [1, 3])), {"x": tensor(boxes, [[2]]), "i": info}),
        "roi_align": (
            lambda: L.roi_align(data("x", [1, 2, 6, 6]), data("r", [-1, 4], level=1), 2, 2),
            {"x": rand(1, 2, 6, 6), "r": tensor(rois, [[2]])},
        ),
        "roi_pool": (
            lambda: L.roi_pool(data("x", [1, 2, 6, 6]), data("r", [-1, 4], level=1), 2, 2),
            {"x": rand(1, 2, 6, 6), "r": tensor(rois, [[2]])},
        ),
        "sequence_slice": (
            lambda: L.sequence_slice(sequences(2), data("o", [1, 1], "int64"), data("n", [1, 1], "int64")),
            {"x": tensor(rand(5, 2), [[5]]), "o": one, "n": one + 1},
        ),
        "sequence_scatter": (
            lambda: L.sequence_scatter(data("x", [1, 6]), data("i", [-1, 1], "int64", 1), data("u", [-1, 1], level=1)),
            {"x": rand(1, 6), "i": tensor(np.array([[1], [3], [1]], "int64"), [[3]]), "u": tensor(rand(3, 1), [[3]])},
        ),
        "crop": (lambda: L.crop(data("x", [1, 5]), [1, 3], [0, 1]), {"x": rand(1, 5)}),
        "scatter_nd_add": (
            lambda: L.scatter_nd_add(data("x", [1, 4]), data("i", [1, 1], "int64"), data("u", [1, 4])),
            {"x": rand(1, 4), "i": one - 1, "u": rand(1, 4)},
        ),
        "target_assign": (
            lambda: L.target_assign(data("x", [-1, 1, 4], level=1), data("m", [1, 3], "int32"), mismatch_value=0)[0],
            {"x": tensor(rand(2, 1, 4), [[2]]), "m": np.array([[1, -1, 0]], "int32")},
        ),
        "bipartite_match": (lambda: L.bipartite_match(sequences(3))[0], {"x": tensor(np.abs(rand(2, 3)), [[2]])}),
        "sequence_topk_avg_pooling": (
            lambda: top(sequences(1), data("r", [-1, 1], level=1), data("c", [-1, 1], level=1), [1, 2], 2),
            {"x": tensor(rand(12, 1), [[12]]), "r": tensor(rand(2, 1), [[2]]), "c": tensor(rand(3, 1), [[3]])},
        ),
        "gaussian_random_batch_size_like (empty)": (
            lambda: L.shape(L.gaussian_random_batch_size_like(sequences(2), [-1, 3])), {"x": with_gap},
        ),
        "uniform_random_batch_size_like (empty)": (
            lambda: L.shape(L.uniform_random_batch_size_like(sequences(2), [-1, 3])), {"x": with_gap},
        ),
        "clip_by_norm (empty)": (lambda: L.clip_by_norm(sequences(2), 0.5), {"x": with_gap}),
    }  # fmt: skip


def run(fluid, make, feed):
    """Shape, LoD and values of what the layer gives."""
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        out = make()
    exe, scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        found = exe.run(main, feed=feed, fetch_list=[out], return_numpy=False)[0]
    values = np.array(found)
    return [list(values.shape), found.recursive_sequence_lengths(), values.reshape(-1).tolist()]


if __name__ == "__main__":
    import paddle.fluid as paddle_fluid

    json.dump({name: run(paddle_fluid, *case) for name, case in cases(paddle_fluid).items()}, sys.stdout)
