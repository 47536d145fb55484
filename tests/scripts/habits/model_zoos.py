"""What whole programs of the model zoos did and the other scripts don't: metrics over batches, names, printed values."""

from distutils.util import strtobool

import numpy as np
import paddle.fluid as fluid
from kit import section, show
from paddle.fluid import layers
from paddle.fluid.contrib import *  # noqa: F403
from paddle.fluid.contrib.layers import *  # noqa: F403
from paddle.fluid.dygraph import *  # noqa: F403


def started():
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    return exe


def rows(a, lengths):
    return fluid.create_lod_tensor(a, [lengths], fluid.CPUPlace())


@section
def star_imports():
    print(layers.__name__.split(".")[-1], Linear.__name__, BasicGRUUnit.__name__)  # noqa: F405


@section
def detection_map_over_batches():
    found = layers.data("found", [6], dtype="float32", lod_level=1)
    label = layers.data("label", [1], dtype="int32", lod_level=1)
    box = layers.data("box", [4], dtype="float32", lod_level=1)
    difficult = layers.data("difficult", [1], dtype="int32", lod_level=1)
    metric = fluid.metrics.DetectionMAP(
        found, label, box, difficult, 4, overlap_threshold=0.5, evaluate_difficult=False, ap_version="11point"
    )
    now, over_all = metric.get_map_var()
    exe = started()
    r = np.random.RandomState(0)
    for _ in range(2):
        metric.reset(exe)
        for _ in range(3):
            boxes = r.uniform(0, 0.5, (6, 4)).astype("float32")
            boxes[:, 2:] = boxes[:, :2] + 0.3
            seen = np.zeros((12, 6), "float32")
            seen[:, 0], seen[:, 1] = r.randint(1, 4, 12), r.rand(12)
            seen[:, 2:] = np.repeat(boxes, 2, 0) + r.uniform(-0.05, 0.05, (12, 4))
            feed = {"found": rows(seen, [4, 4, 4]), "box": rows(boxes, [2, 1, 3])}
            feed["label"] = rows(r.randint(1, 4, (6, 1)).astype("int32"), [2, 1, 3])
            feed["difficult"] = rows(np.zeros((6, 1), "int32"), [2, 1, 3])
            print(exe.run(feed=feed, fetch_list=[now, over_all]))


@section
def pixels_to_ignore():
    predicted = fluid.data("predicted", [None, 4], "int32")
    truth = fluid.data("truth", [None, 4], "int32")
    fetch = list(layers.mean_iou(predicted, truth, 3))
    for y in ([0, 1, 255, 2], [255, 255, 255, 255], [0, 1, 2, 1]):
        feed = {"predicted": np.array([[0, 1, 2, 1]], "int32"), "truth": np.array([y], "int32")}
        print(started().run(feed=feed, fetch_list=fetch))


@section
def names_of_parameters():
    attr = fluid.ParamAttr(initializer=fluid.initializer.Constant(0.1))
    layers.create_parameter([2, 3], "float32", name="weight_norm", attr=attr)
    layers.create_parameter([2, 3], "float32", name="plain")
    layers.create_parameter([2, 3], "float32", name="unused", attr=fluid.ParamAttr(name="named"))
    layers.create_parameter([2, 3], "float32")
    one, three = layers.data("one", [1, 8, 8]), layers.data("three", [3, 8, 8])
    for use_cudnn in (True, False):
        for groups in (None, 1):
            layers.conv2d(one, 4, 3, groups=groups, use_cudnn=use_cudnn)
            layers.conv2d_transpose(one, 1, filter_size=3, groups=groups, use_cudnn=use_cudnn)
        layers.conv2d(three, 6, 3, groups=3, use_cudnn=use_cudnn)
    for p in fluid.default_main_program().all_parameters():
        print(p.name, p.shape)


@section
def state_with_a_lod():
    x = layers.data("x", [2], lod_level=1)
    state = layers.create_global_var([2, 2], 0.0, "float32", persistable=True, name="state")
    last = layers.scale(state, 2.0)
    layers.assign(x + 1.0, state)
    exe = started()
    for lengths in ([2, 1], [1, 3], [3]):
        feed = {"x": rows(np.ones((sum(lengths), 2), "float32"), lengths)}
        show(exe.run(feed=feed, fetch_list=[last, state], return_numpy=False))


@section
def a_number_fed_as_an_array():
    x = layers.data("x", [2])
    beta = layers.data("beta", [], append_batch_size=False)
    loss = beta * layers.mean(x)
    feed = {"x": np.ones((3, 2), "float32"), "beta": np.array([0.5], "float32")}
    print(started().run(feed=feed, fetch_list=[loss]))


@section
def printed_values():
    x = fluid.data("x", [None, 3], "float32")
    values, places = layers.topk(x, 2)
    loss = layers.mean(x)
    feed = {"x": np.array([[0.25, 0.75, 0.5]], "float32")}
    out = started().run(feed=feed, fetch_list=[places, values, loss])
    print(out, {"loss": np.mean(out[2]), "best": out[0].max(), "all": [v for v in out[1][0]]})
    print([np.float32(0.5), np.int64(2), np.bool_(True)], (out[2].mean(), type(out[2])), "%s" % [out[2][0]])
    print(strtobool("false"), strtobool("yes"), "%.2f" % out[2], float(out[2]), int(out[0][0, 0]))
    print(np.array([[1, 2], [3]]).dtype, np.fromstring(b"\x01\x02", dtype=np.uint8), out[1].tostring() == out[1].tobytes())
    with fluid.dygraph.guard():
        print([fluid.dygraph.to_variable(np.array([1, 2])).numpy()])
