"""Imperative programs: layers as classes, a step function, an optimizer over parameters()."""

import numpy as np

from dygraph_model import DygraphModel
from program_model import repeat

VARIANTS = ("linear", "lenet", "text", "norms", "containers", "attention", "recurrent", "losses", "autograd")


def image_data(rng):
    return {"x": rng.uniform(-1, 1, (6, 2, 8, 8)).astype("float32"), "y": rng.randint(0, 4, (6, 1)).astype("int64")}


def vector_data(rng):
    x = rng.uniform(-1, 1, (6, 4)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True)}


def text_data(rng):
    return {"x": rng.randint(0, 20, (5, 4)).astype("int64"), "y": rng.randint(0, 2, (4, 1)).astype("int64")}


def regress(fluid, net, feed):
    out = net(feed["x"])
    return [fluid.layers.mean(fluid.layers.square_error_cost(out, feed["y"])), out]


def classify(fluid, net, feed):
    out = net(feed["x"])
    return [fluid.layers.mean(fluid.layers.cross_entropy(out, feed["y"])), out]


def linear(fluid):
    net = fluid.dygraph.Linear(4, 1)
    return DygraphModel(net, repeat(vector_data), regress, lambda p: fluid.optimizer.SGD(0.1, parameter_list=p))


def lenet(fluid):
    dy = fluid.dygraph

    class LeNet(dy.Layer):
        def __init__(self):
            super(LeNet, self).__init__()
            self.conv = dy.Conv2D(2, 4, 3, padding=1, bias_attr=False)
            self.bn = dy.BatchNorm(4, act="relu")
            self.pool = dy.Pool2D(2, "max", 2)
            self.conv2 = dy.Conv2D(4, 6, 3, act="relu")
            self.fc = dy.Linear(24, 4, act="softmax")

        def forward(self, x):
            x = self.pool(self.bn(self.conv(x)))
            x = self.conv2(x)
            return self.fc(fluid.layers.reshape(x, [-1, 24]))

    def optimizer(params):
        return fluid.optimizer.Adam(0.01, parameter_list=params, regularization=fluid.regularizer.L2Decay(1e-3))

    return DygraphModel(LeNet(), repeat(image_data), classify, optimizer)


def text(fluid):
    dy = fluid.dygraph

    class Classifier(dy.Layer):
        def __init__(self):
            super(Classifier, self).__init__()
            self.embedding = dy.Embedding([20, 6], is_sparse=True)
            self.fc = dy.Linear(6, 15)
            self.gru = dy.GRUUnit(15)
            self.out = dy.Linear(5, 2, act="softmax")

        def forward(self, x):
            hidden = dy.to_variable(np.zeros((4, 5), "float32"))
            for step in range(x.shape[0]):
                hidden, reset, gate = self.gru(self.fc(self.embedding(x[step])), hidden)
            return self.out(hidden)

    def optimizer(params):
        return fluid.optimizer.Adagrad(0.1, parameter_list=params, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.2))

    return DygraphModel(Classifier(), repeat(text_data), classify, optimizer)


def norms(fluid):
    dy, layers = fluid.dygraph, fluid.layers

    class Net(dy.Layer):
        def __init__(self):
            super(Net, self).__init__()
            self.up = dy.Conv2DTranspose(2, 4, 2, stride=2)
            self.group = dy.GroupNorm(4, 2)
            self.prelu = dy.PRelu("channel", channel=4)
            self.down = dy.Conv2D(4, 4, 3, stride=2, padding=1, groups=2)
            self.instance = dy.InstanceNorm(4)
            self.norm = dy.LayerNorm([4, 8, 8])
            self.bilinear = dy.BilinearTensorProduct(4, 4, 3)
            self.drop = dy.Dropout(0.0)
            self.out = dy.Linear(3, 4, act="softmax")

        def forward(self, x):
            x = self.prelu(self.group(self.up(x)))
            x = self.norm(layers.tanh(self.instance(self.down(x))))
            a, b = layers.reduce_max(x, dim=[2, 3]), layers.reduce_mean(layers.square(x), dim=[2, 3])
            return self.out(self.drop(self.bilinear(a, b)))

    return DygraphModel(Net(), repeat(image_data), classify, lambda p: fluid.optimizer.Momentum(0.05, 0.9, parameter_list=p))


def containers(fluid):
    dy, layers = fluid.dygraph, fluid.layers

    class Net(dy.Layer):
        def __init__(self):
            super(Net, self).__init__("my_net")
            self.first = dy.Sequential(("head", dy.Linear(4, 5, act="tanh")), ("named", dy.Linear(5, 5)))
            self.second = dy.Sequential(dy.Linear(5, 5), dy.Linear(5, 5, act="sigmoid"))
            self.rest = dy.LayerList([dy.Linear(5, 5) for _ in range(2)])
            self.scales = dy.ParameterList(
                [layers.create_parameter([5], "float32", default_initializer=fluid.initializer.Constant(1.0))]
            )
            self.shift = self.create_parameter([5], attr=fluid.ParamAttr(name="my_shift"), is_bias=True)
            self.add_parameter("extra", self.create_parameter([5, 1]))
            self.add_sublayer("inner", dy.Linear(5, 5, bias_attr=False))

        def forward(self, x):
            x = self.second(self.first(x))
            for layer in self.rest:
                x = layers.relu(layer(x)) + x
            x = self.inner(x * self.scales[0] + self.shift)
            return layers.matmul(x, self.extra)

    return DygraphModel(Net(), repeat(vector_data), regress, lambda p: fluid.optimizer.SGD(0.05, parameter_list=p))


def attention(fluid):
    dy, layers = fluid.dygraph, fluid.layers

    class Block(dy.Layer):
        def __init__(self):
            super(Block, self).__init__()
            self.emb = dy.Embedding(
                [20, 8],
                padding_idx=0,
                param_attr=fluid.ParamAttr(name="word", initializer=fluid.initializer.Normal(0.0, 0.3)),
            )
            self.q, self.k, self.v = dy.Linear(8, 8), dy.Linear(8, 8), dy.Linear(8, 8)
            self.norm = dy.LayerNorm(8)
            self.out = dy.Linear(8, 2, act="softmax")

        def forward(self, x):
            x = self.emb(layers.transpose(x, [1, 0]))

            def heads(t):
                return layers.transpose(layers.reshape(t, [0, 0, 2, 4]), [0, 2, 1, 3])

            weights = layers.softmax(layers.matmul(heads(self.q(x)), heads(self.k(x)), transpose_y=True, alpha=0.5))
            mixed = layers.reshape(layers.transpose(layers.matmul(weights, heads(self.v(x))), [0, 2, 1, 3]), [0, 0, 8])
            return self.out(layers.reduce_mean(self.norm(x + mixed), dim=1))

    def optimizer(params):
        return fluid.optimizer.Adam(dygraph_rate(fluid), parameter_list=params, grad_clip=fluid.clip.GradientClipByNorm(0.5))

    def dygraph_rate(fluid):
        return dy.NoamDecay(8, 5)

    return DygraphModel(Block(), repeat(text_data), classify, optimizer)


def recurrent(fluid):
    dy, layers = fluid.dygraph, fluid.layers

    class Net(dy.Layer):
        def __init__(self):
            super(Net, self).__init__()
            self.emb = dy.Embedding([20, 6])
            self.gates = dy.Linear(6 + 5, 20)
            self.out = dy.Linear(5, 2, act="softmax")

        def forward(self, x):
            h = layers.zeros([4, 5], "float32")
            c = layers.zeros([4, 5], "float32")
            for t in range(5):
                i, j, f, o = layers.split(self.gates(layers.concat([self.emb(x[t]), h], 1)), num_or_sections=4, dim=-1)
                c = c * layers.sigmoid(f) + layers.sigmoid(i) * layers.tanh(j)
                h = layers.tanh(c) * layers.sigmoid(o)
            return self.out(h)

    return DygraphModel(Net(), repeat(text_data), classify, lambda p: fluid.optimizer.RMSProp(0.01, parameter_list=p))


def losses(fluid):
    dy, layers = fluid.dygraph, fluid.layers
    net = dy.Linear(4, 3)
    mse, l1, bce, nll = dy.MSELoss(), dy.L1Loss(reduction="sum"), dy.BCELoss(), dy.NLLLoss()

    def step(fluid, net, feed):
        out = net(feed["x"])
        target = layers.expand(feed["y"], [1, 3])
        label = layers.cast(layers.reshape(feed["y"], [-1]) > 0.0, "int64")
        total = mse(out, target) + 0.1 * l1(out, target) + nll(layers.log_softmax(out), label)
        return [total + bce(layers.sigmoid(out), layers.cast(target > 0.0, "float32")), out]

    return DygraphModel(net, repeat(vector_data), step, lambda p: fluid.optimizer.SGD(0.05, parameter_list=p))


def autograd(fluid):
    dy, layers = fluid.dygraph, fluid.layers

    class Net(dy.Layer):
        """Of operators that can be differentiated twice."""

        def __init__(self):
            super(Net, self).__init__()
            self.a = self.create_parameter([4, 5], default_initializer=fluid.initializer.Normal(0.2, 0.3))
            self.b = self.create_parameter([5, 1], default_initializer=fluid.initializer.Normal(0.0, 0.3))

        def forward(self, x):
            return layers.mul(layers.square(layers.mul(x, self.a)), self.b)

    net = Net()

    def step(fluid, net, feed):
        x = feed["x"]
        x.stop_gradient = False
        out = net(x)
        grad = dy.grad([out], [x], create_graph=True)[0]
        with dy.no_grad():
            frozen = net(x) * 2.0
        side = out.detach() * out
        loss = (
            layers.mean(layers.square(out - feed["y"]))
            + layers.mean(layers.square(grad))
            + 0.01 * layers.mean(side + frozen)
        )
        return [loss, grad, out]

    return DygraphModel(
        net, repeat(vector_data), step, lambda p: fluid.optimizer.SGD(0.02, parameter_list=p), keep_gradients=True
    )


def build(fluid, variant):
    return globals()[variant](fluid)
