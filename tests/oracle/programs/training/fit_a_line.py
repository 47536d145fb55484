"""Linear regression, SGD."""

from program_model import Model, repeat


def data(rng):
    x = rng.uniform(-1, 1, (20, 13)).astype("float32")
    return {"x": x, "y": (x.sum(1, keepdims=True) * 0.5 + 1).astype("float32")}


def build(fluid):
    x = fluid.layers.data(name="x", shape=[13], dtype="float32")
    y = fluid.layers.data(name="y", shape=[1], dtype="float32")
    y_predict = fluid.layers.fc(input=x, size=1, act=None)
    cost = fluid.layers.square_error_cost(input=y_predict, label=y)
    avg_cost = fluid.layers.mean(cost)
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data)
    return Model(
        avg_cost,
        feeds,
        [y_predict, cost],
        train=lambda: fluid.optimizer.SGD(learning_rate=0.05).minimize(avg_cost),
        test=(test_program, feeds[0], [avg_cost, y_predict]),
    )
