"""dygraph in the ways of 1.4 - 1.7"""
import os
import paddle
from kit import attempt, drawn, fluid, np, section, show, train
from paddle.fluid.dygraph.base import to_variable
from paddle.fluid.dygraph.nn import Conv2D, Pool2D, BatchNorm, Embedding, Linear, LayerNorm
from paddle.fluid.dygraph import Layer
L = fluid.layers
D = fluid.dygraph


def dy(f):
    def g():
        with D.guard(fluid.CPUPlace()):
            f()
    g.__name__ = f.__name__
    section(g)
    return f


def det(m, s=1.0):
    for n, p in m.named_parameters():
        p.set_value(drawn(n, p.shape, s))


@dy
def build_once():
    class Lazy(Layer):
        def __init__(self, name_scope, size):
            super(Lazy, self).__init__(name_scope)
            self._size = size

        def _build_once(self, x):
            self.w = self.create_parameter(attr=fluid.ParamAttr(), shape=[x.shape[-1], self._size], dtype="float32")

        def forward(self, x):
            return L.matmul(x, self.w)

    m = Lazy("lazy", 2)
    x = to_variable(np.ones((2, 3), "float32"))
    y = m(x)
    det(m)
    show(m(x).numpy())
    print(m.full_name(), [p.name for p in m.parameters()])


@dy
def fluid_layers_inside():
    class Net(Layer):
        def __init__(self):
            super(Net, self).__init__()
            self.conv = Conv2D(1, 2, 3, act="relu", param_attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.1)))
            self.bn = BatchNorm(2, act="leaky_relu")

        def forward(self, x):
            a = self.bn(self.conv(x))
            p = L.pool2d(a, 2, "max", 2)
            r = L.image_resize(a, out_shape=[6, 6], resample="NEAREST")
            f = L.flatten(p, axis=1)
            s = L.split(f, 2, dim=1)
            c = L.concat([L.relu(s[0]), L.sigmoid(s[1])], axis=1)
            return L.reduce_sum(c, dim=1, keep_dim=True), L.reduce_max(r), L.l2_normalize(f, axis=1)

    m = Net()
    x = np.random.RandomState(0).rand(2, 1, 6, 6).astype("float32")
    out = m(to_variable(x))
    for o in out:
        show(o.numpy())
    L.mean(out[0]).backward()
    show([p.gradient() for p in m.parameters() if p.gradient() is not None])
    m.eval()
    with D.no_grad():
        show(m(to_variable(x))[0].numpy())
    m.train()
    show(m.bn._mean.numpy(), m.bn._variance.numpy())




@dy
def clip_strategies():
    m = Linear(3, 2)
    det(m)
    print(len(m.parameters()))


@dy
def dict_and_pickle():
    m = D.Sequential(Linear(3, 2), BatchNorm(2), Linear(2, 1))
    det(m)
    d = m.state_dict()
    print([(k, tuple(v.shape)) for k, v in d.items()])
    k = sorted(d)[0]
    fluid.save_dygraph(d, os.path.join("a", "b", "model"))
    p, o = fluid.load_dygraph(os.path.join("a", "b", "model"))
    print(o, sorted(p))
    p[k] = p[k] * 0
    m.set_dict(p)
    show(m.state_dict()[k].numpy())
    p.pop(k)
    attempt(lambda: m.set_dict(p))
    p[k] = np.zeros((7, 7), "float32")
    attempt(lambda: m.set_dict(p))
    attempt(lambda: fluid.load_dygraph("nothing"))
    m.load_dict(d)


@dy
def mixed_containers():
    class N(Layer):
        def __init__(self):
            super(N, self).__init__()
            self.ll = D.LayerList([Linear(3, 3) for _ in range(3)])
            self.pl = D.ParameterList([self.create_parameter([3, 3]) for _ in range(2)])
            self.d = {}
            for i in range(2):
                n = "lin%d" % i
                self.d[n] = self.add_sublayer(n, Linear(3, 3))

        def forward(self, x):
            for l in self.ll:
                x = L.tanh(l(x))
            for p in self.pl:
                x = L.matmul(x, p)
            for k in sorted(self.d):
                x = self.d[k](x)
            return x

    m = N()
    det(m)
    print([n for n, _ in m.named_parameters()])
    print([n for n, _ in m.named_sublayers()], len(m.ll), len(m.pl))
    m.ll.insert(0, Linear(3, 3))
    m.ll.extend([Linear(3, 3)])
    print(len(m.ll), len(m.sublayers()))
    del m.ll[0]
    m.extra = Linear(2, 2)
    m.extra = None if False else Linear(3, 1)
    print(len(m.parameters()), "extra" in dict(m.named_sublayers()))
    attempt(lambda: m.add_parameter("bad", 3))






@dy
def train_loop_1_7():
    r = np.random.RandomState(0)
    xs, ys = r.rand(12, 4).astype("float32"), r.randint(0, 3, (12, 1)).astype("int64")

    def reader():
        for i in range(12):
            yield xs[i], int(ys[i][0])

    batches = paddle.batch(reader, batch_size=4)
    m = D.Sequential(Linear(4, 8, act="relu"), Linear(8, 3, act="softmax"))
    det(m)
    opt = fluid.optimizer.MomentumOptimizer(learning_rate=D.PiecewiseDecay([2, 4], [0.5, 0.2, 0.1], 0), momentum=0.9, parameter_list=m.parameters(),
                                            regularization=fluid.regularizer.L2DecayRegularizer(1e-3))
    for ep in range(2):
        for bid, data in enumerate(batches()):
            x = to_variable(np.array([d[0] for d in data]).astype("float32"))
            y = to_variable(np.array([d[1] for d in data]).astype("int64").reshape(-1, 1))
            y.stop_gradient = True
            out = m(x)
            loss = L.mean(L.cross_entropy(out, y))
            acc = L.accuracy(out, y, k=1)
            loss.backward()
            opt.minimize(loss)
            m.clear_gradients()
            print("%d %d %.5f %.3f" % (ep, bid, loss.numpy(), acc.numpy()))
    print(sorted(opt.state_dict())[:3], type(opt.state_dict().get("LR_Scheduler")).__name__)


@dy
def parallel_env():
    st = D.parallel.prepare_context()
    print(st is None or st.nranks)
    m = D.parallel.DataParallel(Linear(2, 1), st) if st is not None else D.DataParallel(Linear(2, 1), D.parallel.ParallelStrategy())
    det(m)
    l = L.mean(m(to_variable(np.ones((2, 2), "float32"))))
    l = m.scale_loss(l)
    l.backward()
    m.apply_collective_grads()
    show([p.gradient() for p in m.parameters()])
    print(sorted(m.state_dict()), D.parallel.Env().nranks, D.ParallelEnv().local_rank)


@dy
def lstm_cells():
    from paddle.fluid.layers import LSTMCell, GRUCell, rnn
    attempt(lambda: D.LSTMCell(3, 4) if hasattr(D, "LSTMCell") else "none")
    c = D.GRUUnit(6)
    print([p.shape for p in c.parameters()])
    d = D.Dropout(0.5) if hasattr(D, "Dropout") else None
    if d is not None:
        d.eval()
        show(d(to_variable(np.ones((2, 2), "float32"))).numpy())
        d.train()
        print(np.unique(d(to_variable(np.ones((20, 20), "float32"))).numpy()).tolist())


@dy
def custom_grad_penalty():
    d = D.Sequential(Linear(2, 4, act="relu"), Linear(4, 1))
    det(d)
    x = to_variable(np.array([[0.2, 0.3], [0.5, -0.4]], "float32"))
    x.stop_gradient = False
    y = d(x)
    attempt(lambda: D.grad(outputs=[y], inputs=[x], create_graph=False, retain_graph=True)[0].numpy())
    attempt(lambda: D.grad(outputs=y, inputs=x, no_grad_vars=set([x]))[0].numpy())
    attempt(lambda: D.grad(outputs=y, inputs=[d[0].weight], only_inputs=True)[0].numpy())
    attempt(lambda: D.grad(outputs=y, inputs=x, only_inputs=False))


@section
def enable_disable():
    fluid.enable_dygraph()
    print(fluid.in_dygraph_mode())
    x = D.to_variable(np.ones((2,), "float32"))
    show((x + 1).numpy())
    fluid.disable_dygraph()
    print(fluid.in_dygraph_mode(), D.enabled())
    attempt(lambda: D.to_variable(np.ones(2)))
    fluid.disable_imperative()
