"""A digit classifier of three fully connected layers, Adam, gradients clipped by their global norm."""

import numpy as np

from program_model import Model, repeat


def data(rng):
    label = rng.randint(0, 10, (16, 1)).astype("int64")
    img = rng.uniform(-1, 1, (16, 1, 8, 8)).astype("float32")
    img[np.arange(16), 0, 0, label[:, 0] % 8] += 2
    return {"img": img, "label": label}


def build(fluid):
    img = fluid.layers.data(name="img", shape=[1, 8, 8], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    hidden = fluid.layers.fc(input=img, size=24, act="relu")
    hidden = fluid.layers.fc(input=hidden, size=16, act="tanh")
    prediction = fluid.layers.fc(input=hidden, size=10, act="softmax")
    loss = fluid.layers.cross_entropy(input=prediction, label=label)
    avg_loss = fluid.layers.mean(loss)
    acc = fluid.layers.accuracy(input=prediction, label=label)
    acc3 = fluid.layers.accuracy(input=prediction, label=label, k=3)
    test_program = fluid.default_main_program().clone(for_test=True)
    feeds = repeat(data)

    def train():
        clip = fluid.clip.GradientClipByGlobalNorm(clip_norm=0.5)
        fluid.optimizer.Adam(learning_rate=0.01, grad_clip=clip).minimize(avg_loss)

    return Model(avg_loss, feeds, [prediction, acc, acc3], train, test=(test_program, feeds[3], [prediction, acc]))
