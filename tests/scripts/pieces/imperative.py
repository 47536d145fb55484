from kit import attempt, fluid, np, section, show, zlib
import paddle

D = fluid.dygraph
L = fluid.layers


def dy(f):
    def g():
        with D.guard():
            f()

    g.__name__ = f.__name__
    section(g)
    return f


def det(model, s=1.0):
    for n, p in model.named_parameters():
        r = np.random.RandomState(zlib.crc32(n.encode()) & 0x7FFFFFFF)
        p.set_value(((r.rand(*p.shape) - 0.5) * s).astype("float32"))


A = np.arange(6).reshape(2, 3).astype("float32")


@dy
def varbase():
    x = D.to_variable(A.copy())
    x.stop_gradient = False
    print(x.shape, x.dtype, x.name[:9], x.stop_gradient, x.persistable, type(x).__name__)
    y = x * 2 + 1 - x / 3
    z = L.reduce_sum(y**2)
    z.backward()
    show(x.gradient(), y.numpy(), z.numpy())
    print(float(z), z.numpy()[0], len(x), x[0].numpy(), x[:, 1].numpy(), x[-1, -1].numpy(), x[0:1, ::2].numpy())
    x.clear_gradient()
    show(x.gradient())
    d = x.detach()
    print(d.stop_gradient)
    print(x.astype("int32").numpy())
    x.set_value(A.copy() + 1)
    show(x.numpy())
    print((x > 2).numpy().tolist(), (x == x).numpy().all(), bool(L.reduce_sum(x) > 3))
    print(
        -x.numpy()[0, 0],
        (1 - x).numpy()[0],
        (2 / (x + 1)).numpy()[0],
        (2 ** D.to_variable(np.array([2.0], "float32"))).numpy() if False else "",
    )
    print(x.block is not None if hasattr(x, "block") else "", x.gradient() is not None)
    for row in x:
        print(row.numpy())


@dy
def varprint():
    x = D.to_variable(A.copy())
    print(x)
    print(D.to_variable(np.array([1, 2], "int64")))


@dy
def linear_mods():
    m = D.Sequential(D.Linear(3, 4, act="relu"), D.Linear(4, 2))
    det(m)
    print([p.name for p in m.parameters()], len(m), m[0].weight.shape)
    o = m(D.to_variable(A.copy()))
    show(o.numpy())
    l = L.mean(o)
    l.backward()
    show([p.gradient() for p in m.parameters()])
    m2 = D.Sequential(("a", D.Linear(3, 2)), ("b", D.Linear(2, 2)))
    print(sorted(m2.state_dict().keys()))
    m2.add_sublayer("c", D.Linear(2, 2))
    print(len(m2.sublayers()))
    ll = D.LayerList([D.Linear(2, 2) for _ in range(3)])
    ll.append(D.Linear(2, 1))
    print(len(ll), [n for n, _ in ll.named_parameters()])
    ll[0] = D.Linear(2, 5)
    print(ll[0].weight.shape)
    ll.insert(1, D.Linear(5, 2))
    print([l.weight.shape for l in ll])
    ll.extend([D.Linear(1, 1)])
    print(len(ll))
    del ll[0]
    print(len(ll), [l.weight.shape for l in ll[0:2]])
    pl = D.ParameterList([L.create_parameter([2, 2], "float32") for _ in range(2)])
    print(len(pl), [n for n, _ in pl.named_parameters()])
    pl.append(L.create_parameter([1], "float32"))
    print(len(pl))


@dy
def custom_layer():
    class Net(D.Layer):
        def __init__(self, name_scope=None):
            super(Net, self).__init__(name_scope)
            self.w = self.create_parameter([3, 2], attr=fluid.ParamAttr(initializer=fluid.initializer.Constant(0.5)))
            self.b = self.create_parameter([2], is_bias=True)
            self.buf = D.to_variable(np.ones(2, "float32"))
            self.add_parameter("extra", self.create_parameter([1], default_initializer=fluid.initializer.Constant(3.0)))
            self.register_buffer("rb", D.to_variable(np.zeros(1, "float32"))) if hasattr(
                self, "register_buffer"
            ) else None

        def forward(self, x):
            return L.matmul(x, self.w) + self.b * self.extra

    n = Net("mynet")
    print(n.full_name(), sorted(n.state_dict().keys()), [k for k, _ in n.named_parameters()])

    def pre(l, i):
        print("pre", type(l).__name__, len(i))
        return None

    def post(l, i, o):
        print("post")
        return o * 2

    if hasattr(n, "register_forward_pre_hook"):
        h1 = n.register_forward_pre_hook(pre)
        h2 = n.register_forward_post_hook(post)
        show(n(D.to_variable(A.copy())).numpy())
        h1.remove()
        h2.remove()
    show(n(D.to_variable(A.copy())).numpy())
    n.eval()
    print(n.training)
    n.train()
    print(n.training)
    for k, l in n.named_children() if hasattr(n, "named_children") else []:
        print(k)
    attempt(lambda: n.nothing)
    attempt(lambda: n.add_parameter("w", 3))
    attempt(lambda: n.add_sublayer(1, n))
    attempt(lambda: setattr(n, "w", 3) or print(type(n.w)))
    attempt(lambda: n(1, 2, 3))


@dy
def optim_all():
    for k, mk in [
        ("sgd", lambda p: fluid.optimizer.SGD(0.1, parameter_list=p)),
        (
            "mom",
            lambda p: fluid.optimizer.Momentum(
                0.1, 0.9, parameter_list=p, regularization=fluid.regularizer.L2Decay(0.1)
            ),
        ),
        (
            "adam",
            lambda p: fluid.optimizer.Adam(
                D.ExponentialDecay(0.1, 2, 0.5), parameter_list=p, grad_clip=fluid.clip.GradientClipByGlobalNorm(0.1)
            ),
        ),
        ("adagrad", lambda p: fluid.optimizer.Adagrad(0.1, parameter_list=p)),
        ("rms", lambda p: fluid.optimizer.RMSProp(0.1, parameter_list=p)),
        ("adamax", lambda p: fluid.optimizer.Adamax(D.PiecewiseDecay([1, 2], [0.1, 0.05, 0.01], 0), parameter_list=p)),
        ("lamb", lambda p: fluid.optimizer.Lamb(0.1, parameter_list=p)),
        ("ftrl", lambda p: fluid.optimizer.Ftrl(0.1, parameter_list=p)),
        ("dada", lambda p: fluid.optimizer.DecayedAdagrad(0.1, parameter_list=p)),
        ("adadelta", lambda p: fluid.optimizer.Adadelta(0.1, parameter_list=p)),
        ("lars", lambda p: fluid.optimizer.LarsMomentum(0.1, 0.9, parameter_list=p)),
        (
            "noam",
            lambda p: fluid.optimizer.Adam(
                D.NoamDecay(16, 3), parameter_list=p, grad_clip=fluid.clip.GradientClipByValue(0.1)
            ),
        ),
        (
            "cos",
            lambda p: fluid.optimizer.SGD(
                D.CosineDecay(0.1, 1, 3), parameter_list=p, grad_clip=fluid.clip.GradientClipByNorm(0.1)
            ),
        ),
    ]:
        m = D.Linear(3, 2)
        m.weight.set_value(A.reshape(3, 2) / 6)
        o = mk(m.parameters())
        for i in range(3):
            l = L.mean(L.square(m(D.to_variable(A.copy()))))
            l.backward()
            r = o.minimize(l)
            m.clear_gradients()
            print(k, "%.5f lr %.6f" % (float(l.numpy()), o.current_step_lr()))
        show(m.weight.numpy())
        print(sorted(x.replace(m.weight.name, "W").replace(m.bias.name, "B") for x in o.state_dict()))
