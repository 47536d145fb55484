"""CycleGAN: two generators, two discriminators, cycle and identity losses (Zhu et al., 2017). Three Programs."""

import numpy as np

from families import Rounds
from program_model import repeat

SIDE, WIDTH = 12, 4


def data(rng):
    return {name: rng.uniform(-1, 1, (1, 3, SIDE, SIDE)).astype("float32") for name in ("input_A", "input_B")}


class Nets(object):
    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def instance_norm(self, input, name):
        scale = self.fluid.ParamAttr(name=name + "_scale", initializer=self.fluid.initializer.Constant(1.0))
        offset = self.fluid.ParamAttr(name=name + "_offset", initializer=self.fluid.initializer.Constant(0.0))
        return self.layers.instance_norm(input, epsilon=1e-5, param_attr=scale, bias_attr=offset)

    def conv2d(
        self, input, num_filters, filter_size, stride=1, padding=0, name="conv2d", norm=True, relu=True, slope=0.0
    ):
        conv = self.layers.conv2d(
            input,
            num_filters,
            filter_size,
            name=name,
            stride=stride,
            padding=padding,
            param_attr=self.fluid.ParamAttr(
                name=name + "_w", initializer=self.fluid.initializer.TruncatedNormal(scale=0.02)
            ),
            bias_attr=self.fluid.ParamAttr(name=name + "_b", initializer=self.fluid.initializer.Constant(0.0)),
        )
        if norm:
            conv = self.instance_norm(conv, name + "_norm")
        if relu:
            conv = self.layers.leaky_relu(conv, alpha=slope)
        return conv

    def deconv2d(self, input, num_filters, name):
        conv = self.layers.conv2d_transpose(
            input,
            num_filters,
            filter_size=3,
            stride=2,
            padding=[1, 1],
            param_attr=self.fluid.ParamAttr(
                name=name + "_w", initializer=self.fluid.initializer.TruncatedNormal(scale=0.02)
            ),
            bias_attr=self.fluid.ParamAttr(name=name + "_b", initializer=self.fluid.initializer.Constant(0.0)),
        )
        conv = self.layers.pad2d(conv, paddings=[0, 1, 0, 1], mode="constant", pad_value=0.0)
        return self.layers.relu(self.instance_norm(conv, name + "_norm"))

    def resnet_block(self, input, dim, name):
        out = self.layers.pad2d(input, [1, 1, 1, 1], mode="reflect")
        out = self.conv2d(out, dim, 3, name=name + "_c1")
        out = self.layers.pad2d(out, [1, 1, 1, 1], mode="reflect")
        out = self.conv2d(out, dim, 3, name=name + "_c2", relu=False)
        return self.layers.elementwise_add(out, input)

    def generator(self, input, name):
        net = self.layers.pad2d(input, [3, 3, 3, 3], mode="reflect")
        net = self.conv2d(net, WIDTH, 7, name=name + "_c1")
        net = self.conv2d(net, WIDTH * 2, 3, 2, 1, name=name + "_c2")
        net = self.resnet_block(net, WIDTH * 2, name + "_r1")
        net = self.deconv2d(net, WIDTH, name + "_c4")
        net = self.layers.pad2d(net, [3, 3, 3, 3], mode="reflect")
        return self.layers.tanh(self.conv2d(net, 3, 7, name=name + "_c6", norm=False, relu=False))

    def discriminator(self, input, name):
        net = self.conv2d(input, WIDTH, 4, 2, 1, name=name + "_c1", norm=False, slope=0.2)
        net = self.conv2d(net, WIDTH * 2, 4, 1, 1, name=name + "_c2", slope=0.2)
        return self.conv2d(net, 1, 4, 1, 1, name=name + "_c5", norm=False, relu=False)


def generator_program(fluid, nets, startup):
    """Both generators against both discriminators. Returns (program, loss, fake A, fake B)."""
    layers, program = fluid.layers, fluid.Program()
    with fluid.program_guard(program, startup):
        input_a = layers.data(name="input_A", shape=[1, 3, SIDE, SIDE], append_batch_size=False)
        input_b = layers.data(name="input_B", shape=[1, 3, SIDE, SIDE], append_batch_size=False)
        fake_b, fake_a = nets.generator(input_a, "g_A"), nets.generator(input_b, "g_B")
        cycle_a, cycle_b = nets.generator(fake_b, "g_B"), nets.generator(fake_a, "g_A")
        cycle = layers.reduce_mean(layers.abs(input_a - cycle_a)) + layers.reduce_mean(layers.abs(input_b - cycle_b))
        same_a, same_b = nets.generator(input_b, "g_A"), nets.generator(input_a, "g_B")
        identity = layers.reduce_mean(layers.abs(same_a - input_b)) + layers.reduce_mean(layers.abs(same_b - input_a))
        fooled = layers.mean(layers.square(nets.discriminator(fake_a, "d_A") - 1)) + layers.mean(
            layers.square(nets.discriminator(fake_b, "d_B") - 1)
        )
        loss = fooled + 10.0 * cycle + 5.0 * identity
        names = [p.name for p in program.all_parameters() if p.name.startswith("g_")]
        schedule = layers.piecewise_decay(boundaries=[4], values=[2e-4, 1e-4])
        fluid.optimizer.Adam(learning_rate=schedule, beta1=0.5, beta2=0.999).minimize(loss, parameter_list=names)
    return program, loss, fake_a, fake_b


def discriminator_program(fluid, nets, startup, letter):
    layers, program = fluid.layers, fluid.Program()
    with fluid.program_guard(program, startup):
        real = layers.data(name="input_" + letter, shape=[1, 3, SIDE, SIDE], append_batch_size=False)
        pooled = layers.data(name="fake_pool_" + letter, shape=[1, 3, SIDE, SIDE], append_batch_size=False)
        on_real, on_fake = nets.discriminator(real, "d_" + letter), nets.discriminator(pooled, "d_" + letter)
        loss = (layers.square(on_real - 1) + layers.square(on_fake)) / 2.0
        loss = layers.reduce_mean(loss)
        names = [p.name for p in program.all_parameters() if p.name.startswith("d_" + letter)]
        fluid.optimizer.Adam(learning_rate=2e-4, beta1=0.5, name="net_D_" + letter).minimize(loss, parameter_list=names)
    return program, loss


def build(fluid):
    startup, nets = fluid.default_startup_program(), Nets(fluid)
    g_program, g_loss, fake_a, fake_b = generator_program(fluid, nets, startup)
    d_a, d_a_loss = discriminator_program(fluid, nets, startup, "A")
    d_b, d_b_loss = discriminator_program(fluid, nets, startup, "B")

    def turn(exe, feed):
        loss, drawn_a, drawn_b = exe.run(g_program, feed=feed, fetch_list=[g_loss, fake_a, fake_b])
        on_b = exe.run(d_b, feed={"input_B": feed["input_B"], "fake_pool_B": drawn_b}, fetch_list=[d_b_loss])[0]
        on_a = exe.run(d_a, feed={"input_A": feed["input_A"], "fake_pool_A": drawn_a}, fetch_list=[d_a_loss])[0]
        return [float(np.array(value).reshape(-1)[0]) for value in (loss, on_b, on_a)]

    return Rounds({"g": g_program, "d_A": d_a, "d_B": d_b}, turn, repeat(data, 5))
