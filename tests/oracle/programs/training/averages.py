"""Averaged parameters: applied for an evaluation, then restored."""

import numpy as np

from program_model import Model, repeat

VARIANTS = ("model_average", "model_average_window", "ema", "ema_thres")


def data(rng):
    x = rng.uniform(-1, 1, (8, 4)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True)}


def build(fluid, variant):
    x = fluid.layers.data(name="x", shape=[4], dtype="float32")
    y = fluid.layers.data(name="y", shape=[1], dtype="float32")
    predict = fluid.layers.fc(
        input=fluid.layers.fc(input=x, size=3, act="tanh"), size=1, bias_attr=fluid.ParamAttr(do_model_average=False)
    )
    loss = fluid.layers.mean(fluid.layers.square_error_cost(input=predict, label=y))
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds, made = repeat(data), {}

    def train():
        optimizer = fluid.optimizer
        optimizer.Momentum(0.1, 0.9).minimize(loss)
        if variant == "model_average":
            made["average"] = optimizer.ModelAverage(0.15, min_average_window=100, max_average_window=200)
        elif variant == "model_average_window":
            made["average"] = optimizer.ModelAverage(0.5, min_average_window=2, max_average_window=5)
        elif variant == "ema":
            made["average"] = optimizer.ExponentialMovingAverage(0.9)
            made["average"].update()
        else:
            steps = fluid.layers.autoincreased_step_counter(begin=0)
            made["average"] = optimizer.ExponentialMovingAverage(0.99, thres_steps=steps)
            made["average"].update()

    def after(exe):
        found = {}
        found["before"] = np.array(exe.run(test_program, feed=feeds[0], fetch_list=[predict.name])[0])
        with made["average"].apply(exe):
            found["applied"] = np.array(exe.run(test_program, feed=feeds[0], fetch_list=[predict.name])[0])
        found["restored"] = np.array(exe.run(test_program, feed=feeds[0], fetch_list=[predict.name])[0])
        with made["average"].apply(exe, need_restore=False):
            pass
        found["kept"] = np.array(exe.run(test_program, feed=feeds[0], fetch_list=[predict.name])[0])
        return found

    return Model(loss, feeds, [predict], train, after=after)
