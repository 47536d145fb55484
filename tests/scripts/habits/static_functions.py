import os
import paddle
from paddle.fluid.dygraph import declarative, ProgramTranslator, TracedLayer, Linear, Conv2D, Layer, to_variable, guard, dygraph_to_static_func, Embedding, BatchNorm
from kit import attempt, drawn, fluid, np, section, show
L = fluid.layers
D = fluid.dygraph


def det(model, s=1.0):
    for n, p in model.named_parameters():
        if not n.endswith("_variance"):
            p.set_value(drawn(n, p.shape, s))


def dy(f):
    def g():
        with guard(fluid.CPUPlace()):
            f()
    g.__name__ = f.__name__
    section(g)
    return f


@declarative
def loop(x, n):
    i = fluid.layers.fill_constant([1], "int64", 0)
    s = fluid.layers.zeros_like(x)
    while i < n:
        s = s + x * fluid.layers.cast(i, "float32")
        i = i + 1
    return s


@dy
def while_loop():
    x = to_variable(np.arange(4).reshape(2, 2).astype("float32"))
    show(loop(x, to_variable(np.array([4], "int64"))).numpy())


@declarative
def for_range(x):
    for i in range(3):
        x = x + i
    return x


@dy
def python_for():
    show(for_range(to_variable(np.ones((2,), "float32"))).numpy())






@declarative
def logic(x):
    m = fluid.layers.mean(x)
    if m > 0:
        y = m * 2
    elif m < -5:
        y = m * 3
    else:
        y = m
    return y


@dy
def elif_chain():
    for v in (1.0, -1.0, -6.0):
        show(logic(to_variable(np.full((2,), v, "float32"))).numpy())


@declarative
def both(x):
    m = fluid.layers.mean(x)
    if m > 0 and m < 10:
        m = m + 100
    return m


@dy
def boolean_and():
    for v in (1.0, -1.0, 20.0):
        attempt(lambda: both(to_variable(np.full((2,), v, "float32"))).numpy())










@declarative
def arr(x):
    a = []
    for i in range(3):
        a.append(x * i)
    return fluid.layers.concat(a, axis=0)


@dy
def list_append():
    attempt(lambda: arr(to_variable(np.ones((1, 2), "float32"))).numpy())


def helper(x):
    if fluid.layers.mean(x) > 0:
        return_value = x + 1
    else:
        return_value = x - 1
    return return_value


@declarative
def calls(x):
    y = helper(x)
    z = helper(y * -5)
    return y, z


@dy
def calls_other_functions():
    show([v.numpy() for v in calls(to_variable(np.ones((2,), "float32")))])






class Net(Layer):
    def __init__(self, v=10, h=4):
        super(Net, self).__init__()
        self.emb = Embedding([v, h])
        self.bn = BatchNorm(h)
        self.lin = Linear(h, 2)
        self.hist = []

    @declarative
    def forward(self, ids, y=None):
        e = self.emb(ids)
        e = self.bn(e)
        o = self.lin(e)
        if y is not None:
            return o, fluid.layers.reduce_mean(fluid.layers.softmax_with_cross_entropy(o, y))
        return o




@dy
def translator_outputs():
    pt = ProgramTranslator()
    print(pt is ProgramTranslator.get_instance() if hasattr(ProgramTranslator, "get_instance") else True)
    m = Net()
    det(m)
    ids = to_variable(np.array([1, 2], "int64"))
    out = pt.get_output(m.forward.__func__ if hasattr(m.forward, "__func__") else m.forward, m, ids) if False else None
    code = pt.get_code(helper)
    print("def helper" in code, "cond" in code or "convert" in code)
    f = pt.get_func(helper)
    print(callable(f))
    show(pt.get_output(helper, to_variable(np.ones((2,), "float32"))).numpy())
    p = pt.get_program(helper, to_variable(np.ones((2,), "float32")))
    print(len(p), type(p[0]).__name__, len(p[2]), len(p[3]) if isinstance(p[3], (list, tuple)) else 1)
    pt.enable(False)
    show(loop(to_variable(np.ones((1,), "float32")), to_variable(np.array([2], "int64"))).numpy())
    pt.enable(True)




@dy
def traced_with_control():
    m = D.Sequential(Conv2D(1, 2, 3, act="relu"), D.Pool2D(2, "max", 2), BatchNorm(2))
    det(m)
    m.eval()
    x = to_variable(np.random.RandomState(0).rand(2, 1, 6, 6).astype("float32"))
    out, t = TracedLayer.trace(m, [x])
    show(out.numpy(), t([x])[0])
    t.save_inference_model("tr", feed=[0], fetch=[0])
    print([o.type for o in t.program.global_block().ops])
