"""DCGAN on 28x28 digits, batch 64: one turn updates the discriminator, then the generator, each with Adam."""

import numpy as np

RNG = np.random.RandomState(0)
BATCH, NOISE = 64, 100
IMAGE = RNG.uniform(-1, 1, (BATCH, 1, 28, 28)).astype("float32")
Z = RNG.uniform(-1, 1, (BATCH, NOISE)).astype("float32")
RATE, BETA = 2e-4, 0.5
TOLERANCE = {"all": (1e-4, 2e-2)}
LEFT_OUT = {
    "jax": "two optimizers over shared parameters are not in the common description, and not written by hand",
    "paddle3": "two optimizers over shared parameters are not in the common description, and not written by hand",
}


class FluidNets:
    """Both nets; parameters are named g_… and d_…, so that the Programs share them."""

    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def norm(self, x, name, act=None):
        attr = self.fluid.ParamAttr
        return self.layers.batch_norm(
            x, act=act, param_attr=attr(name=name + "_s"), bias_attr=attr(name=name + "_b"),
            moving_mean_name=name + "_m", moving_variance_name=name + "_v",
        )  # fmt: skip

    def generator(self, z):
        layers, attr = self.layers, self.fluid.ParamAttr
        x = layers.fc(z, 1024, param_attr=attr(name="g_fc1"), bias_attr=False)
        x = self.norm(x, "g_n1", "relu")
        x = layers.fc(x, 128 * 7 * 7, param_attr=attr(name="g_fc2"), bias_attr=False)
        x = layers.reshape(self.norm(x, "g_n2", "relu"), [-1, 128, 7, 7])
        x = layers.conv2d_transpose(
            x, 64, filter_size=4, stride=2, padding=1, param_attr=attr(name="g_c1"), bias_attr=False
        )
        x = self.norm(x, "g_n3", "relu")
        return layers.conv2d_transpose(
            x, 1, filter_size=4, stride=2, padding=1, act="tanh", param_attr=attr(name="g_c2"), bias_attr=False
        )

    def discriminator(self, x):
        layers, attr = self.layers, self.fluid.ParamAttr
        x = layers.conv2d(x, 64, 4, 2, 1, param_attr=attr(name="d_c1"), bias_attr=False)
        x = layers.leaky_relu(x, 0.2)
        x = layers.conv2d(x, 128, 4, 2, 1, param_attr=attr(name="d_c2"), bias_attr=False)
        x = layers.leaky_relu(self.norm(x, "d_n1"), 0.2)
        x = layers.fc(x, 1024, param_attr=attr(name="d_fc1"), bias_attr=False)
        x = layers.leaky_relu(self.norm(x, "d_n2"), 0.2)
        return layers.fc(x, 1, param_attr=attr(name="d_fc2"), bias_attr=attr(name="d_fc2_b"))


def fluid_turn(fluid):
    """([Programs], turn(exe) -> sum of both losses); parameters come as the generator's, then the discriminator's."""
    layers, nets = fluid.layers, FluidNets(fluid)
    startup = fluid.default_startup_program()

    def bce(logits, target):
        label = layers.fill_constant_batch_size_like(logits, [-1, 1], "float32", target)
        return layers.mean(layers.sigmoid_cross_entropy_with_logits(logits, label))

    def minimize(loss, prefix, program):
        names = [p.name for p in program.all_parameters() if p.name.startswith(prefix) and p.trainable]
        fluid.optimizer.Adam(RATE, beta1=BETA).minimize(loss, startup, parameter_list=names)

    main = fluid.default_main_program()
    z = layers.data("z", [NOISE])
    image = layers.data("image", [1, 28, 28])
    fake = nets.generator(z)
    fake.stop_gradient = True
    d_loss = bce(nets.discriminator(fake), 0.0) + bce(nets.discriminator(image), 1.0)
    minimize(d_loss, "d_", main)
    generating = fluid.Program()
    with fluid.program_guard(generating, startup):
        g_loss = bce(nets.discriminator(nets.generator(layers.data("z", [NOISE]))), 1.0)
        minimize(g_loss, "g_", generating)

    def turn(exe):
        first = exe.run(main, feed={"z": Z, "image": IMAGE}, fetch_list=[d_loss])[0]
        second = exe.run(generating, feed={"z": Z}, fetch_list=[g_loss])[0]
        return float(first.reshape(-1)[0] + second.reshape(-1)[0])

    return [main, generating], turn


def torch_step(parameters, compiled=False):
    import torch
    from described import torch_side
    from torch import nn
    from torch.nn import functional as F

    values = iter(parameters.values())

    def filled(module):
        names = ["weight"]
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            names = ["weight", "bias", "running_mean", "running_var"]
        return torch_side.set_parameters(module, dict(zip(names, torch_side.take(values, len(names)))))

    generator = nn.Sequential(
        torch_side.linear(values, bias=False), filled(nn.BatchNorm1d(1024)), nn.ReLU(),
        torch_side.linear(values, bias=False), filled(nn.BatchNorm1d(6272)), nn.ReLU(), nn.Unflatten(1, (128, 7, 7)),
        filled(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False)), filled(nn.BatchNorm2d(64)), nn.ReLU(),
        filled(nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False)), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        filled(nn.Conv2d(1, 64, 4, 2, 1, bias=False)), nn.LeakyReLU(0.2),
        filled(nn.Conv2d(64, 128, 4, 2, 1, bias=False)), filled(nn.BatchNorm2d(128)), nn.LeakyReLU(0.2), nn.Flatten(),
        torch_side.linear(values, bias=False), filled(nn.BatchNorm1d(1024)), nn.LeakyReLU(0.2),
        torch_side.linear(values),
    )  # fmt: skip
    g_optimizer = torch.optim.Adam(generator.parameters(), RATE, (BETA, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), RATE, (BETA, 0.999))
    g_run, d_run = (torch.compile(m) if compiled else m for m in (generator, discriminator))

    def bce(logits, target):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def step():
        z, image = torch.from_numpy(Z), torch.from_numpy(IMAGE)
        d_loss = bce(d_run(g_run(z).detach()), 0.0) + bce(d_run(image), 1.0)
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        g_loss = bce(d_run(g_run(z)), 1.0)
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        return (d_loss + g_loss).item()

    return step
