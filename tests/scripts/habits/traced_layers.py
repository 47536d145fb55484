import os

from kit import drawn, fluid, np, section, show
from paddle.fluid.dygraph import (
    Layer,
    Linear,
    ProgramTranslator,
    TracedLayer,
    declarative,
    guard,
    to_variable,
)

L = fluid.layers
D = fluid.dygraph


def det(model, s=1.0):
    for n, p in model.named_parameters():
        p.set_value(drawn(n, p.shape, s))


def dy(f):
    def g():
        with guard(fluid.CPUPlace()):
            f()

    g.__name__ = f.__name__
    section(g)
    return f


@declarative
def branch(x):
    x = fluid.dygraph.to_variable(x)
    x_v = fluid.layers.mean(x)
    if x_v > 5:
        x_v = x_v - 1
    else:
        x_v = x_v + 1
    return x_v


@dy
def if_else():
    for v in (1.0, 10.0):
        show(branch(np.full((2, 2), v, "float32")).numpy())


class Net(Layer):
    def __init__(self):
        super().__init__()
        self.a = Linear(3, 4, act="relu")
        self.b = Linear(4, 1)

    @declarative
    def forward(self, x, flag=True):
        h = self.a(x)
        if flag:
            h = h * 2
        s = fluid.layers.reduce_mean(h)
        if s > 0.5:
            h = h - s
        else:
            h = h + s
        return self.b(h)


@dy
def layer_train_and_save():
    m = Net()
    det(m)
    opt = fluid.optimizer.SGD(0.1, parameter_list=m.parameters())
    r = np.random.RandomState(0)
    for i in range(4):
        x = to_variable(r.rand(4, 3).astype("float32"))
        l = L.reduce_mean(L.square(m(x) - 1.0))
        l.backward()
        opt.minimize(l)
        m.clear_gradients()
        show(l.numpy())
    pt = ProgramTranslator()
    x = to_variable(r.rand(4, 3).astype("float32"))
    want = m(x).numpy()
    code = pt.get_code(branch.__wrapped__ if hasattr(branch, "__wrapped__") and False else Net.forward)
    print(type(code).__name__, len(code) > 20)
    main, startup, ins, outs = pt.get_program(Net.forward, m, x)
    print([o.type for o in main.global_block().ops][:5], len(ins), len(outs))
    pt.enable(False)
    print(np.abs(m(x).numpy() - want).max() < 1e-6)
    pt.enable(True)
    print(pt.get_program_cache() is not None)


@dy
def traced_layer():
    m = Linear(3, 2, act="tanh")
    det(m)
    x = to_variable(np.ones((2, 3), "float32"))
    out, traced = TracedLayer.trace(m, inputs=[x])
    show(out.numpy() if not isinstance(out, list) else out[0].numpy())
    st = fluid.ExecutionStrategy()
    bs = fluid.BuildStrategy()
    traced.set_strategy(build_strategy=bs, exec_strategy=st)
    show(traced([to_variable(np.zeros((1, 3), "float32"))])[0])
    traced.save_inference_model("saved", feed=[0], fetch=[0])
    print(sorted(os.listdir("saved")))
    print([o.type for o in traced.program.global_block().ops])
    place = fluid.CPUPlace()


@section
def load_traced():
    with guard():
        m = Linear(3, 2, act="tanh")
        det(m)
        out, traced = TracedLayer.trace(m, [to_variable(np.ones((2, 3), "float32"))])
        traced.save_inference_model("saved2")
    exe = fluid.Executor(fluid.CPUPlace())
    prog, feeds, fetches = fluid.io.load_inference_model("saved2", exe)
    print(len(feeds), len(fetches))
    show(exe.run(prog, feed={feeds[0]: np.ones((2, 3), "float32")}, fetch_list=fetches))


@dy
def data_loader_in_dygraph():
    def sample():
        for i in range(5):
            yield np.full((2,), i, "float32"), np.array([i], "int64")

    def sample_list():
        for b in range(2):
            yield [(np.full((2,), b, "float32"), np.array([b], "int64")) for _ in range(2)]

    def batch():
        for b in range(2):
            yield np.full((2, 2), b, "float32"), np.full((2, 1), b, "int64")

    for k in range(3):
        loader = fluid.io.DataLoader.from_generator(capacity=2, iterable=True, use_multiprocess=(k == 1))
        if k == 0:
            loader.set_sample_generator(sample, batch_size=2, drop_last=False, places=fluid.CPUPlace())
        elif k == 1:
            loader.set_sample_list_generator(sample_list, places=fluid.CPUPlace())
        else:
            loader.set_batch_generator(batch, places=fluid.CPUPlace())
        for _ep in range(2):
            for x, y in loader():
                print(k, x.shape, y.shape, x.numpy()[:, 0].tolist(), y.numpy().ravel().tolist(), type(x).__name__)
