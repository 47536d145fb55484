"""LeNet with batch normalisation on 28x28 images, batch 64, Adam."""

import numpy as np

RNG = np.random.RandomState(0)
X = RNG.randn(64, 1, 28, 28).astype("float32")
Y = RNG.randint(0, 10, (64, 1)).astype("int64")


def fluid_model(fluid):
    image = fluid.layers.data("image", [1, 28, 28])
    label = fluid.layers.data("label", [1], dtype="int64")
    x = image
    for filters in (20, 50):
        x = fluid.layers.conv2d(x, filters, 5)
        x = fluid.layers.batch_norm(x, act="relu")
        x = fluid.layers.pool2d(x, 2, "max", 2)
    x = fluid.layers.fc(x, 500, act="relu")
    prediction = fluid.layers.fc(x, 10, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(prediction, label))
    fluid.optimizer.Adam(0.001).minimize(loss)
    return {"image": X, "label": Y}, loss


def torch_step(compiled=False):
    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.BatchNorm2d(20), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.BatchNorm2d(50), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip
    if compiled:
        net = torch.compile(net)
    optimizer = torch.optim.Adam(net.parameters(), 0.001)

    def step():
        x, y = torch.from_numpy(X), torch.from_numpy(Y)
        loss = nn.functional.cross_entropy(net(x), y[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
