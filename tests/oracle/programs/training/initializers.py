"""One parameter for each initializer; of random ones only shape and statistics can be compared."""

import numpy as np

from program_model import Model


def build(fluid):
    init = fluid.initializer
    made = {
        "constant": init.Constant(1.25),
        "uniform": init.Uniform(-0.3, 0.5, seed=3),
        "normal": init.Normal(0.5, 0.2),
        "truncated": init.TruncatedNormal(0.1, 0.3),
        "xavier_uniform": init.Xavier(),
        "xavier_normal": init.Xavier(uniform=False),
        "xavier_fan": init.Xavier(fan_in=10, fan_out=20),
        "msra_uniform": init.MSRA(),
        "msra_normal": init.MSRA(uniform=False),
        "msra_fan": init.MSRA(uniform=True, fan_in=8),
        "array": init.NumpyArrayInitializer(np.arange(3000).reshape(50, 60).astype("float32")),
    }
    for name in sorted(made):
        fluid.layers.create_parameter([50, 60], "float32", name=name, default_initializer=made[name])
    fluid.layers.create_parameter([8, 4, 6, 6], "float32", name="bilinear", default_initializer=init.Bilinear())
    fluid.layers.create_parameter([30, 20, 3, 3], "float32", name="conv_xavier", default_initializer=init.Xavier())
    fluid.layers.create_parameter([30, 20, 3, 3], "float32", name="conv_msra", default_initializer=init.MSRA(uniform=False))
    fluid.layers.create_parameter([3000], "float32", name="default_bias", is_bias=True)
    fluid.layers.create_parameter([50, 60], "float32", name="default_weight")
    img = fluid.layers.data("img", [20, 9, 9])
    conv = fluid.layers.conv2d(img, 30, 3)
    up = fluid.layers.conv2d_transpose(conv, 20, filter_size=3)
    seq = fluid.layers.data("seq", [40], lod_level=1)
    lstm, _ = fluid.layers.dynamic_lstm(fluid.layers.fc(seq, 80), 80)
    fluid.layers.dynamic_gru(fluid.layers.fc(lstm, 60), 20)
    fluid.layers.batch_norm(up)
    fluid.layers.embedding(fluid.layers.data("ids", [1], dtype="int64"), [100, 30])
    return Model(statistics=True)
