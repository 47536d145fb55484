"""Every learning-rate schedule on a one-layer regression; the rate itself is fetched."""

from program_model import Model, repeat

SCHEDULES = {
    "noam": lambda L: L.noam_decay(16, 5, learning_rate=0.5),
    "exponential": lambda L: L.exponential_decay(0.1, 5, 0.6),
    "exponential_staircase": lambda L: L.exponential_decay(0.1, 5, 0.6, staircase=True),
    "natural_exp": lambda L: L.natural_exp_decay(0.1, 5, 0.6),
    "natural_exp_staircase": lambda L: L.natural_exp_decay(0.1, 5, 0.6, staircase=True),
    "inverse_time": lambda L: L.inverse_time_decay(0.1, 5, 0.6),
    "inverse_time_staircase": lambda L: L.inverse_time_decay(0.1, 5, 0.6, staircase=True),
    "polynomial": lambda L: L.polynomial_decay(0.1, 12, end_learning_rate=0.01, power=2.0),
    "polynomial_cycle": lambda L: L.polynomial_decay(0.1, 6, end_learning_rate=0.01, power=1.0, cycle=True),
    "piecewise": lambda L: L.piecewise_decay([4, 10], [0.1, 0.05, 0.01]),
    "cosine": lambda L: L.cosine_decay(0.1, step_each_epoch=4, epochs=5),
    "warmup": lambda L: L.linear_lr_warmup(0.1, warmup_steps=6, start_lr=0.01, end_lr=0.1),
    "warmup_decay": lambda L: L.linear_lr_warmup(
        L.exponential_decay(0.1, 5, 0.6), warmup_steps=6, start_lr=0.01, end_lr=0.1
    ),
    "step_counter": lambda L: 0.05 / (1.0 + L.cast(L.autoincreased_step_counter(), "float32")),
}
VARIANTS = tuple(sorted(SCHEDULES))


def data(rng):
    x = rng.uniform(-1, 1, (8, 4)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True)}


def build(fluid, variant):
    x = fluid.layers.data(name="x", shape=[4], dtype="float32")
    y = fluid.layers.data(name="y", shape=[1], dtype="float32")
    predict = fluid.layers.fc(input=x, size=1)
    loss = fluid.layers.mean(fluid.layers.square_error_cost(input=predict, label=y))
    rate = SCHEDULES[variant](fluid.layers)
    return Model(loss, repeat(data), [rate], train=lambda: fluid.optimizer.SGD(learning_rate=rate).minimize(loss))
