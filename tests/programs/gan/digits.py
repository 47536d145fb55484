"""GAN over digits: three Programs share parameters, two optimizers each update their own list.

cgan: both nets see the label (Mirza and Osindero, 2014). dcgan: transposed convolutions (Radford et al., 2015).
"""

import numpy as np

from families import Rounds
from program_model import repeat

VARIANTS = ("cgan", "dcgan")
BATCH, NOISE, SIDE = 4, 6, 16


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, SIDE * SIDE)).astype("float32"),
        "conditions": rng.randint(0, 10, (BATCH, 1)).astype("float32"),
        "noise": rng.uniform(-1, 1, (BATCH, NOISE)).astype("float32"),
    }


class Nets(object):
    """The generator and the discriminator; parameters carry the prefix `g_` or `d_`.

    What batch_norm follows has no bias: its gradient would be rounding noise, which Adam scales up to whole steps.
    """

    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def bn(self, x, name, act="relu"):
        return self.layers.batch_norm(
            x,
            param_attr=self.fluid.ParamAttr(name=name + "1", initializer=self.fluid.initializer.Constant(1.0)),
            bias_attr=self.fluid.ParamAttr(name=name + "2", initializer=self.fluid.initializer.Constant(0.0)),
            moving_mean_name=name + "3",
            moving_variance_name=name + "4",
            act=act,
        )

    def conv(self, x, num_filters, name, act=None, bias=True):
        return self.fluid.nets.simple_img_conv_pool(
            input=x,
            filter_size=5,
            num_filters=num_filters,
            pool_size=2,
            pool_stride=2,
            param_attr=self.fluid.ParamAttr(name=name + "w"),
            bias_attr=self.fluid.ParamAttr(name=name + "b") if bias else False,
            act=act,
        )

    def fc(self, x, num_filters, name, act=None, bias=True):
        return self.layers.fc(
            input=x,
            size=num_filters,
            act=act,
            param_attr=self.fluid.ParamAttr(name=name + "w"),
            bias_attr=self.fluid.ParamAttr(name=name + "b") if bias else False,
        )

    def deconv(self, x, num_filters, name, output_size, act=None):
        return self.layers.conv2d_transpose(
            input=x,
            param_attr=self.fluid.ParamAttr(name=name + "w"),
            bias_attr=self.fluid.ParamAttr(name=name + "b"),
            num_filters=num_filters,
            output_size=output_size,
            filter_size=5,
            stride=2,
            dilation=1,
            padding=2,
            act=act,
        )

    def generator(self, z, y=None):
        if y is not None:
            z = self.layers.concat([z, y], 1)
        x = self.bn(self.fc(z, 24, "g_fc0_", bias=False), "g_bn0_")
        x = self.bn(self.fc(x, 4 * (SIDE // 4) ** 2, "g_fc1_", bias=False), "g_bn1_")
        x = self.layers.reshape(x, [-1, 4, SIDE // 4, SIDE // 4])
        x = self.deconv(x, 4, "g_deconv0_", [SIDE // 2, SIDE // 2], act="relu")
        x = self.deconv(x, 1, "g_deconv1_", [SIDE, SIDE], act="tanh")
        return self.layers.reshape(x, shape=[-1, SIDE * SIDE])

    def discriminator(self, image, y=None):
        x = self.layers.reshape(x=image, shape=[-1, 1, SIDE, SIDE])
        x = self.conv(x, 4, "d_conv0_", act="leaky_relu", bias=y is None)
        x = self.conv(x, 6, "d_conv1_", bias=False) if y is None else x
        x = self.bn(x, "d_bn0_", act="leaky_relu")
        if y is not None:
            x = self.layers.concat([self.layers.flatten(x), y], 1)
        x = self.bn(self.fc(x, 16, "d_fc0_", bias=False), "d_bn1_", act="leaky_relu")
        return self.fc(x, 1, "d_fc1_")


def build(fluid, variant):
    layers, nets = fluid.layers, Nets(fluid)
    startup = fluid.default_startup_program()
    g_program, d_program_real, d_program_fake = fluid.Program(), fluid.Program(), fluid.Program()

    def inputs():
        if variant == "dcgan":
            return None
        return layers.data(name="conditions", shape=[1], dtype="float32")

    def cost(logit, real):
        label = layers.fill_constant_batch_size_like(input=logit, dtype="float32", shape=[-1, 1], value=float(real))
        return layers.reduce_mean(layers.sigmoid_cross_entropy_with_logits(x=logit, label=label))

    with fluid.program_guard(d_program_real, startup):
        image = layers.data(name="image", shape=[SIDE * SIDE], dtype="float32")
        d_loss_real = cost(nets.discriminator(image, inputs()), 1)
    with fluid.program_guard(d_program_fake, startup):
        image = layers.data(name="image", shape=[SIDE * SIDE], dtype="float32")
        d_loss_fake = cost(nets.discriminator(image, inputs()), 0)
    with fluid.program_guard(g_program, startup):
        noise = layers.data(name="noise", shape=[NOISE], dtype="float32")
        conditions = inputs()
        generated = nets.generator(noise, conditions)
        g_program_test = g_program.clone(for_test=True)
        g_loss = cost(nets.discriminator(generated, conditions), 1)

    def only(program, prefix):
        return [p.name for p in program.global_block().all_parameters() if p.name.startswith(prefix)]

    fluid.optimizer.Adam(learning_rate=2e-4, beta1=0.5).minimize(
        loss=g_loss, startup_program=startup, parameter_list=only(g_program, "g_")
    )
    for loss, program in ((d_loss_real, d_program_real), (d_loss_fake, d_program_fake)):
        fluid.optimizer.Adam(learning_rate=2e-4, beta1=0.5).minimize(
            loss=loss, startup_program=startup, parameter_list=only(program, "d_")
        )

    def turn(exe, feed):
        said = {} if variant == "dcgan" else {"conditions": feed["conditions"]}
        drawn = exe.run(g_program_test, feed=dict(said, noise=feed["noise"]), fetch_list=[generated.name])[0]
        fake = exe.run(d_program_fake, feed=dict(said, image=drawn), fetch_list=[d_loss_fake])[0]
        real = exe.run(d_program_real, feed=dict(said, image=feed["image"]), fetch_list=[d_loss_real])[0]
        losses = [fake, real]
        for _ in range(2):
            losses += exe.run(g_program, feed=dict(said, noise=feed["noise"]), fetch_list=[g_loss])
        return [float(np.array(value).reshape(-1)[0]) for value in losses]

    programs = {"g": g_program, "d_real": d_program_real, "d_fake": d_program_fake}
    feeds = repeat(data, 5)
    test_feed = {k: v for k, v in feeds[0].items() if k == "noise" or k == "conditions" and variant == "cgan"}
    return Rounds(programs, turn, feeds, test=(g_program_test, test_feed, [generated.name]))
