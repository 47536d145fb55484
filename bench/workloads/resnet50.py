"""ResNet-50 on 224x224 images, batch 8, Momentum with L2 decay."""

import numpy as np

RNG = np.random.RandomState(0)
BATCH = 8
X = RNG.randn(BATCH, 3, 224, 224).astype("float32")
Y = RNG.randint(0, 1000, (BATCH, 1)).astype("int64")
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def fluid_model(fluid):
    layers = fluid.layers

    def conv_bn(x, filters, size, stride=1, act=None):
        x = layers.conv2d(x, filters, size, stride, (size - 1) // 2, bias_attr=False)
        return layers.batch_norm(x, act=act)

    def block(x, filters, stride):
        y = conv_bn(x, filters, 1, act="relu")
        y = conv_bn(y, filters, 3, stride, "relu")
        y = conv_bn(y, 4 * filters, 1)
        if x.shape[1] != 4 * filters or stride != 1:
            x = conv_bn(x, 4 * filters, 1, stride)
        return layers.elementwise_add(x, y, act="relu")

    image = layers.data("image", [3, 224, 224])
    label = layers.data("label", [1], dtype="int64")
    x = conv_bn(image, 64, 7, 2, "relu")
    x = layers.pool2d(x, 3, "max", 2, 1)
    for filters, count, stride in STAGES:
        for k in range(count):
            x = block(x, filters, stride if k == 0 else 1)
    x = layers.pool2d(x, pool_type="avg", global_pooling=True)
    prediction = layers.fc(x, 1000, act="softmax")
    loss = layers.mean(layers.cross_entropy(prediction, label))
    fluid.optimizer.Momentum(0.01, 0.9, regularization=fluid.regularizer.L2Decay(1e-4)).minimize(loss)
    return {"image": X, "label": Y}, loss


def torch_step(compiled=False):
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, filters, stride):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(inputs, filters, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
                nn.Conv2d(filters, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
                nn.Conv2d(filters, 4 * filters, 1, bias=False), nn.BatchNorm2d(4 * filters),
            )  # fmt: skip
            self.short = nn.Identity()
            if inputs != 4 * filters or stride != 1:
                self.short = nn.Sequential(
                    nn.Conv2d(inputs, 4 * filters, 1, stride, bias=False), nn.BatchNorm2d(4 * filters)
                )

        def forward(self, x):
            return torch.relu(self.short(x) + self.body(x))

    parts = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for filters, count, stride in STAGES:
        for k in range(count):
            parts.append(Block(inputs, filters, stride if k == 0 else 1))
            inputs = 4 * filters
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    if compiled:
        net = torch.compile(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)

    def step():
        loss = nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.from_numpy(Y)[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
