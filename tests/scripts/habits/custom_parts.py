import copy
import os
from paddle.fluid.layer_helper import LayerHelper
from paddle.fluid.initializer import Initializer
from paddle.fluid.regularizer import WeightDecayRegularizer
from paddle.fluid.framework import Variable, Parameter
from kit import draw, fluid, np, section, show, train
L = fluid.layers
O = fluid.optimizer
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


def reg(size=3):
    x = L.data("x", [4])
    y = L.data("y", [1])
    h = L.fc(x, size, act="tanh")
    p = L.fc(h, 1)
    return L.mean(L.square_error_cost(p, y)), p


def feeds(n, b=4):
    R.seed(0)
    return [{"x": R.rand(b, 4).astype("float32"), "y": R.rand(b, 1).astype("float32")} for _ in range(n)]


@section
def custom_initializer():
    class Ramp(Initializer):
        def __init__(self, step):
            super(Ramp, self).__init__()
            self.step = step

        def __call__(self, var, block):
            assert isinstance(block, fluid.framework.Block)
            fan_in, fan_out = self._compute_fans(var)
            values = (np.arange(int(np.prod(var.shape))) * self.step / fan_in).astype("float32")
            op = block._prepend_op(type="assign_value", outputs={"Out": [var]}, attrs={
                "dtype": var.dtype, "shape": [int(s) for s in var.shape], "fp32_values": [float(v) for v in values]}, stop_gradient=True)
            var.op = op
            return op

    x = L.data("x", [4])
    p = L.fc(x, 3, param_attr=fluid.ParamAttr(initializer=Ramp(0.5)), bias_attr=False)
    c = L.conv2d(L.reshape(x, [-1, 1, 2, 2]), 2, 2, param_attr=fluid.ParamAttr(initializer=Ramp(1.0)), bias_attr=False)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    show(exe.run(feed={"x": feeds(1)[0]["x"]}, fetch_list=[p, c, "fc_0.w_0", "conv2d_0.w_0"]))


@section
def custom_regularizer():
    class Lasso(WeightDecayRegularizer):
        def __init__(self, c):
            super(Lasso, self).__init__()
            self.c = c

        def __call__(self, param, grad, block):
            decay = block.create_var(dtype=param.dtype, shape=param.shape, type=param.type)
            block.append_op(type="sign", inputs={"X": param}, outputs={"Out": decay})
            block.append_op(type="scale", inputs={"X": decay}, outputs={"Out": decay}, attrs={"scale": self.c})
            return decay

        def __str__(self):
            return "Lasso, c=%f" % self.c

    loss, p = reg()
    train(loss, feeds(3), O.SGD(0.5, regularization=Lasso(0.3)), ["fc_0.w_0"])


@section
def custom_clip():
    class Half(fluid.clip.GradientClipBase if hasattr(fluid.clip, "GradientClipBase") else object):
        def __str__(self):
            return "half"

        def _static_clip(self, params_grads):
            out = []
            with fluid.framework.name_scope("half"):
                for p, g in params_grads:
                    with p.block.program._optimized_guard([p, g]):
                        out.append((p, L.scale(g, 0.5)))
            return out

        def _dygraph_clip(self, params_grads):
            return [(p, g * 0.5) for p, g in params_grads]

    loss, p = reg()
    train(loss, feeds(3), O.SGD(0.5, grad_clip=Half()), ["fc_0.w_0"])


@section
def custom_optimizer():
    class Sign(fluid.optimizer.Optimizer):
        _acc = "avg"

        def __init__(self, learning_rate, beta, **kw):
            super(Sign, self).__init__(learning_rate=learning_rate, **kw)
            self.type = "signum"
            self._beta = beta

        def _create_accumulators(self, block, parameters):
            for p in parameters:
                self._add_accumulator(self._acc, p)

        def _append_optimize_op(self, block, param_and_grad):
            acc = self._get_accumulator(self._acc, param_and_grad[0])
            lr = self._create_param_lr(param_and_grad)
            return block.append_op(type="momentum", inputs={"Param": param_and_grad[0], "Grad": param_and_grad[1], "Velocity": acc, "LearningRate": lr},
                                   outputs={"ParamOut": param_and_grad[0], "VelocityOut": acc}, attrs={"mu": self._beta, "use_nesterov": False}, stop_gradient=True)

    print([c.__name__ for c in Sign.__mro__][1])
    loss, p = reg()
    opt = Sign(0.1, 0.9, regularization=fluid.regularizer.L2Decay(0.01))
    ops, pg = opt.minimize(loss)
    print(len(ops), len(pg), type(ops[0]).__name__)
    train(loss, feeds(3), None, ["fc_0.w_0", "fc_0.w_0_avg_0"])


@section
def custom_layer():
    def my_scale(x, factor, name=None, act=None):
        helper = LayerHelper("my_scale", **locals())
        dtype = helper.input_dtype(input_param_name="x")
        w = helper.create_parameter(attr=helper.param_attr, shape=[x.shape[-1]], dtype=dtype, is_bias=False,
                                    default_initializer=fluid.initializer.ConstantInitializer(factor))
        out = helper.create_variable_for_type_inference(dtype)
        helper.append_op(type="elementwise_mul", inputs={"X": [x], "Y": [w]}, outputs={"Out": [out]}, attrs={"axis": -1})
        return helper.append_activation(out)

    x = L.data("x", [4])
    a = my_scale(x, 2.0)
    b = my_scale(x, 3.0, name="mine", act="relu")
    print(a.name, b.name, [p.name for p in fluid.default_main_program().all_parameters()])
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    show(exe.run(feed={"x": feeds(1)[0]["x"] - 0.5}, fetch_list=[a, b]))


@section
def ema_by_hand_and_teacher():
    loss, p = reg()
    main = fluid.default_main_program()
    O.SGD(0.5).minimize(loss)
    block = main.global_block()
    pairs = []
    for prm in list(main.global_block().all_parameters()):
        t = block.create_var(name=prm.name + ".ema", shape=prm.shape, dtype=prm.dtype, persistable=True)
        s = fluid.default_startup_program().global_block().create_var(name=t.name, shape=prm.shape, dtype=prm.dtype, persistable=True)
        fluid.initializer.Constant(0.0)(s, fluid.default_startup_program().global_block())
        L.assign(t * 0.9 + prm * 0.1, t)
    train(loss, feeds(3), None, ["fc_0.w_0.ema", "fc_1.b_0.ema"])




@section
def two_optimizers_two_losses():
    x = L.data("x", [4])
    a = L.fc(x, 2, name="a")
    b = L.fc(x, 2, name="b")
    la, lb = L.mean(L.square(a)), L.mean(L.square(b - a))
    O.SGD(0.5).minimize(la, parameter_list=["a.w_0", "a.b_0"])
    O.Adam(0.1).minimize(lb, parameter_list=["b.w_0"], no_grad_set=set(["b.b_0"]))
    print([o.type for o in fluid.default_main_program().global_block().ops][-8:])
    train(lb, [{"x": f["x"]} for f in feeds(3)], None, [la, "a.w_0", "b.w_0"])


@section
def minimize_twice():
    loss, p = reg()
    O.SGD(0.1).minimize(loss)
    O.SGD(0.1).minimize(loss)
    print(len(fluid.default_main_program().global_block().ops))
    train(loss, feeds(2), None, ["fc_0.w_0"])




@section
def lr_variable_and_set():
    loss, p = reg()
    lr = L.create_global_var([1], 0.5, "float32", persistable=True, name="my_lr")
    opt = O.Adagrad(lr)
    opt.minimize(loss)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    for i, f in enumerate(feeds(3)):
        fluid.global_scope().find_var("my_lr").get_tensor().set(np.array([0.5 / (i + 1)], "float32"), pl)
        show(exe.run(feed=f, fetch_list=[loss, lr]))
    print(opt._global_learning_rate().name, opt.type, opt._accumulators.keys() if hasattr(opt, "_accumulators") else "")


@section
def freeze_and_finetune():
    x = L.data("x", [4])
    y = L.data("y", [1])
    h = L.fc(x, 3, act="relu", param_attr=fluid.ParamAttr(name="back_w", trainable=False), bias_attr=fluid.ParamAttr(name="back_b", learning_rate=0.0))
    h.stop_gradient = False
    p = L.fc(h, 1, param_attr="head_w", bias_attr="head_b")
    loss = L.mean(L.square_error_cost(p, y))
    _, pg = O.SGD(0.5).minimize(loss)
    print([a.name for a, _ in pg])
    train(loss, feeds(3), None, ["back_w", "back_b", "head_w"])
    exe = fluid.Executor(pl)
    os.makedirs("pre") if not os.path.exists("pre") else None
    fluid.io.save_vars(exe, "pre", vars=[fluid.default_main_program().global_block().var("back_w")])

    def has(v):
        return os.path.exists(os.path.join("pre", v.name))
    fluid.io.load_vars(exe, "pre", predicate=has)
    print(sorted(os.listdir("pre")))


@section
def program_state():
    loss, p = reg()
    O.Adam(0.1).minimize(loss)
    exe = train(loss, feeds(2))
    fluid.save(fluid.default_main_program(), "m/state")
    print(sorted(os.listdir("m")))
    st = fluid.load_program_state("m/state")
    print(len(st), sorted(st)[:3])
    st["fc_0.w_0"] = np.zeros_like(st["fc_0.w_0"])
    fluid.set_program_state(fluid.default_main_program(), st)
    show(exe.run(feed=feeds(1)[0], fetch_list=[loss, "fc_0.w_0"]))
    fluid.load(fluid.default_main_program(), "m/state", exe)
    show(exe.run(feed=feeds(1)[0], fetch_list=[loss]))
    prog = fluid.default_main_program()
    print([v.name for v in fluid.io.get_program_parameter(prog)], len(fluid.io.get_program_persistable_vars(prog)))
    show(fluid.io.get_parameter_value_by_name("fc_0.b_0", exe, prog))
    show(fluid.io.get_parameter_value(prog.global_block().var("fc_0.b_0"), exe))
    print(fluid.io.is_parameter(prog.global_block().var("fc_0.b_0")), fluid.io.is_persistable(loss), fluid.io.is_belong_to_optimizer(prog.global_block().var("learning_rate_0")) if hasattr(fluid.io, "is_belong_to_optimizer") else "")


@section
def deepcopies():
    loss, p = reg()
    a = fluid.ParamAttr(name="q", initializer=fluid.initializer.Xavier())
    b = copy.deepcopy(a)
    b.name = "r"
    print(a.name, b.name, type(b.initializer).__name__)
    main = copy.deepcopy(fluid.default_main_program()) if False else fluid.default_main_program().clone()
    with fluid.program_guard(main):
        L.fill_constant([1], "float32", 2.0)
    print(len(main.global_block().ops), len(fluid.default_main_program().global_block().ops))


@section
def weighted_multitask():
    x = L.data("x", [4])
    y = L.data("y", [1])
    shared = L.fc(x, 4, act="relu")
    heads = [L.fc(shared, 1, name="head%d" % i) for i in range(3)]
    losses = [L.mean(L.square_error_cost(h, y * float(i + 1))) for i, h in enumerate(heads)]
    total = L.sum(losses) if hasattr(L, "sum") else L.sums(losses)
    w = L.fill_constant([1], "float32", 0.2)
    total = L.elementwise_mul(total, w) + 0.1 * losses[0] - losses[1] / 10 + losses[2] ** 2
    train(total, feeds(3), O.RMSProp(0.05, rho=0.9, momentum=0.5, centered=True), losses)
