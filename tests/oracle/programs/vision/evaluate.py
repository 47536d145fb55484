"""What clone(for_test=True) computes with dropout (both implementations) and batch norm; nothing random is trained."""

from program_model import Model, repeat

VARIANTS = ("downgrade_in_infer", "upscale_in_train")


def data(rng):
    return {"img": rng.uniform(-1, 1, (4, 2, 6, 6)).astype("float32")}


def build(fluid, variant):
    img = fluid.layers.data("img", [2, 6, 6])
    net = fluid.layers.conv2d(img, 4, 3, act=None)
    net = fluid.layers.batch_norm(net, act="relu")
    net = fluid.layers.dropout(net, dropout_prob=0.4, dropout_implementation=variant)
    net = fluid.layers.sequence_pool(fluid.layers.lod_reset(fluid.layers.flatten(net), target_lod=[0, 1, 4]), "max")
    out = fluid.layers.fc(net, 3, act="softmax")
    loss = fluid.layers.mean(out)
    fluid.optimizer.Adam(0.1).minimize(loss)
    test_program = fluid.default_main_program().clone(for_test=True)
    return Model(None, test=(test_program, repeat(data, 1)[0], [out, net]))
