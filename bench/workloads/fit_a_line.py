"""Linear regression, 13 features, batch 20, SGD."""

import described
import numpy as np

RNG = np.random.RandomState(0)
FEED = {"x": RNG.randn(20, 13).astype("float32"), "y": RNG.randn(20, 1).astype("float32")}


def loss(n, feed):
    return n.square_error(n.fc(feed["x"], 1), feed["y"])


fluid_model, _, jax_step, paddle3_step = described.peers(loss, FEED, described.Optimizer("sgd", 0.01))


def torch_step(parameters, compiled=False):
    """By hand: at this size every call counts."""
    import torch
    from described import torch_side

    net = torch_side.linear(iter(parameters.values()))
    run = torch.compile(net) if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    return torch_side.training_step(
        lambda: ((run(torch.from_numpy(FEED["x"])) - torch.from_numpy(FEED["y"])) ** 2).mean(), optimizer
    )
