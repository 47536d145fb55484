"""WGAN with gradient penalty (Gulrajani et al., 2017): the critic's loss holds a gradient, its update differentiates twice."""

import numpy as np

from families import Rounds
from program_model import repeat

BATCH, NOISE, SIDE, PENALTY = 4, 5, 8, 10.0


def data(rng):
    return {
        "image": rng.uniform(-1, 1, (BATCH, 1, SIDE, SIDE)).astype("float32"),
        "noise": rng.uniform(-1, 1, (BATCH, NOISE)).astype("float32"),
        "alpha": rng.uniform(0, 1, (BATCH, 1)).astype("float32"),
    }


def generator(fluid, noise):
    layers = fluid.layers
    hidden = layers.fc(noise, 4 * (SIDE // 2) ** 2, act="relu", param_attr="g_fc_w", bias_attr="g_fc_b")
    hidden = layers.reshape(hidden, [-1, 4, SIDE // 2, SIDE // 2])
    return layers.conv2d_transpose(
        hidden, 1, filter_size=4, stride=2, padding=1, act="tanh", param_attr="g_deconv_w", bias_attr="g_deconv_b"
    )


def critic(fluid, image):
    layers = fluid.layers
    net = layers.conv2d(image, 4, 3, stride=2, padding=1, param_attr="d_conv0_w", bias_attr="d_conv0_b")
    net = layers.leaky_relu(net, alpha=0.2)
    net = layers.conv2d(net, 6, 3, stride=2, padding=1, param_attr="d_conv1_w", bias_attr="d_conv1_b")
    net = layers.leaky_relu(net, alpha=0.2)
    return layers.fc(net, 1, param_attr="d_fc_w", bias_attr="d_fc_b")


def gradient_penalty(fluid, real, fake, alpha):
    """(|d critic / d x| - 1)^2 at points between the real and the made."""
    layers = fluid.layers
    between = real + layers.elementwise_mul(fake - real, alpha, axis=0)
    between.stop_gradient = False
    score = critic(fluid, between)
    grad = fluid.gradients(score, between, no_grad_set=None)[0]
    grad = layers.reshape(grad, [-1, SIDE * SIDE])
    norm = layers.sqrt(layers.reduce_sum(layers.square(grad), dim=1) + 1e-16)
    return layers.reduce_mean(layers.square(norm - 1.0))


def build(fluid):
    layers, startup = fluid.layers, fluid.default_startup_program()
    g_program, d_program = fluid.Program(), fluid.Program()

    def names(program, prefix):
        return [p.name for p in program.global_block().all_parameters() if p.name.startswith(prefix)]

    with fluid.program_guard(g_program, startup):
        noise = fluid.data(name="noise", shape=[None, NOISE], dtype="float32")
        made = generator(fluid, noise)
        drawing = g_program.clone(for_test=True)
        g_loss = -layers.reduce_mean(critic(fluid, made))
        optimizer = fluid.optimizer.Adam(learning_rate=1e-3, beta1=0.5, beta2=0.9)
        optimizer.minimize(g_loss, parameter_list=names(g_program, "g_"))
    with fluid.program_guard(d_program, startup):
        image = fluid.data(name="image", shape=[None, 1, SIDE, SIDE], dtype="float32")
        fake = fluid.data(name="fake", shape=[None, 1, SIDE, SIDE], dtype="float32")
        alpha = fluid.data(name="alpha", shape=[None, 1], dtype="float32")
        distance = layers.reduce_mean(critic(fluid, fake)) - layers.reduce_mean(critic(fluid, image))
        penalty = gradient_penalty(fluid, image, fake, alpha)
        d_loss = distance + PENALTY * penalty
        optimizer = fluid.optimizer.Adam(learning_rate=1e-3, beta1=0.5, beta2=0.9)
        optimizer.minimize(d_loss, parameter_list=names(d_program, "d_"))

    def turn(exe, feed):
        drawn = exe.run(drawing, feed={"noise": feed["noise"]}, fetch_list=[made.name])[0]
        fed = {"image": feed["image"], "fake": drawn, "alpha": feed["alpha"]}
        losses = exe.run(d_program, feed=fed, fetch_list=[d_loss, penalty])
        losses += exe.run(g_program, feed={"noise": feed["noise"]}, fetch_list=[g_loss])
        return [float(np.array(value).reshape(-1)[0]) for value in losses]

    return Rounds({"g": g_program, "d": d_program}, turn, repeat(data, 5))
