"""Linear regression, 13 features, batch 20, SGD."""

import numpy as np

RNG = np.random.RandomState(0)
X = RNG.randn(20, 13).astype("float32")
Y = RNG.randn(20, 1).astype("float32")


def fluid_model(fluid):
    x = fluid.layers.data("x", [13])
    y = fluid.layers.data("y", [1])
    predict = fluid.layers.fc(x, 1)
    loss = fluid.layers.mean(fluid.layers.square_error_cost(predict, y))
    fluid.optimizer.SGD(0.01).minimize(loss)
    return {"x": X, "y": Y}, loss


def torch_step(compiled=False):
    import torch

    net = torch.nn.Linear(13, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)

    def step():
        x, y = torch.from_numpy(X), torch.from_numpy(Y)
        loss = ((net(x) - y) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
