import os
import paddle
from kit import attempt, draw, fluid, np, section, show, train
L = fluid.layers
pl = fluid.CPUPlace()
R = np.random.RandomState(0)


def reg():
    x = L.data(name="x", shape=[4], dtype="float32")
    y = L.data(name="y", shape=[1], dtype="float32")
    p = L.fc(input=x, size=1, act=None)
    return x, y, p, L.mean(L.square_error_cost(input=p, label=y))


def feeds(n, b=4):
    R.seed(0)
    return [{"x": R.rand(b, 4).astype("float32"), "y": R.rand(b, 1).astype("float32")} for _ in range(n)]


@section
def memory_optimize():
    x, y, p, loss = reg()
    fluid.optimizer.SGD(0.1).minimize(loss)
    fluid.memory_optimize(fluid.default_main_program(), print_log=False)
    fluid.memory_optimize(fluid.default_main_program(), skip_opt_set=set([loss.name]), level=1)
    fluid.release_memory(fluid.default_main_program())
    fluid.transpiler.memory_optimize(fluid.default_main_program())
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    for f in feeds(2):
        show(exe.run(feed=f, fetch_list=[loss]))


@section
def inference_transpiler():
    x = L.data("img", [2, 6, 6])
    c = L.conv2d(x, 3, 3, bias_attr=False)
    b = L.batch_norm(c, act="relu", is_test=True)
    t = getattr(fluid, "InferenceTranspiler", None) or getattr(fluid.transpiler, "InferenceTranspiler", None)
    print(t is not None)




@section
def parallel_executor_1_1():
    x, y, p, loss = reg()
    fluid.optimizer.SGD(0.1).minimize(loss)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    es = fluid.ExecutionStrategy()
    es.num_threads = 1
    es.num_iteration_per_drop_scope = 10
    es.allow_op_delay = False
    bs = fluid.BuildStrategy()
    bs.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.AllReduce
    bs.gradient_scale_strategy = fluid.BuildStrategy.GradientScaleStrategy.CoeffNumDevice
    bs.fuse_elewise_add_act_ops = True
    bs.memory_optimize = False
    bs.enable_inplace = False
    pe = fluid.ParallelExecutor(use_cuda=False, loss_name=loss.name, main_program=fluid.default_main_program(), exec_strategy=es, build_strategy=bs)
    print(pe.device_count)
    for f in feeds(3):
        out = pe.run(fetch_list=[loss.name], feed=f)
        show(np.array(out[0]))
    te = fluid.ParallelExecutor(use_cuda=False, main_program=fluid.default_main_program().clone(for_test=True), share_vars_from=pe)
    show(te.run([loss.name], feed=feeds(1)[0]))
    show(pe.run([loss.name], feed=[feeds(1, 2)[0], feeds(1, 2)[0]]))
    pe.drop_local_exe_scopes()


@section
def metrics_1_1():
    m = fluid.metrics.Accuracy()
    m.update(value=0.5, weight=2)
    m.update(value=1.0, weight=2)
    print(m.eval())
    c = fluid.metrics.CompositeMetric()
    c.add_metric(fluid.metrics.Precision())
    c.add_metric(fluid.metrics.Recall())
    c.update(preds=np.array([[0.1], [0.7], [0.8], [0.9], [0.2]]), labels=np.array([[0], [1], [1], [0], [1]]))
    print(c.eval())
    e = fluid.metrics.EditDistance("ed")
    e.update(np.array([[1.0], [0.0]]), 2)
    print(e.eval())
    a = fluid.metrics.Auc("ROC", num_thresholds=100)
    a.update(preds=np.array([[0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]), labels=np.array([[1], [0], [0]]))
    print(round(float(a.eval()), 5))
    k = fluid.metrics.ChunkEvaluator()
    k.update(10, 9, 8)
    k.update(3, 2, 1)
    print([round(float(v), 5) for v in k.eval()])
    m.reset()
    attempt(m.eval)
    print(m.get_config() if hasattr(m, "get_config") else "")

    class My(fluid.metrics.MetricBase):
        def __init__(self):
            super(My, self).__init__("my")
            self.total = 0
            self.parts = [1, 2]

        def update(self, v):
            self.total += v

        def eval(self):
            return self.total
    q = My()
    q.update(4)
    print(q.eval(), str(q))
    q.reset()
    print(q.eval(), q.parts)
    d = fluid.metrics.DetectionMAP


@section
def averages_and_evaluators():
    w = fluid.average.WeightedAverage()
    w.add(2.0, 1)
    w.add(np.array([4.0]), 3)
    print(w.eval())
    w.reset()
    attempt(w.eval)
    lab = L.data("lab", [1], dtype="int64", lod_level=1)
    inf = L.data("inf", [1], dtype="int64", lod_level=1)
    ev = fluid.evaluator.ChunkEvaluator(input=inf, label=lab, chunk_scheme="IOB", num_chunk_types=2)
    ed = fluid.evaluator.EditDistance(input=inf, label=lab)
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    ev.reset(exe)
    ed.reset(exe)
    t = lambda v: fluid.create_lod_tensor(np.array(v, "int64").reshape(-1, 1), [[3, 2]], pl)
    for i in range(2):
        show(exe.run(feed={"lab": t([0, 1, 4, 2, 3]), "inf": t([0, 1, 4, 2, 2])}, fetch_list=list(ev.metrics) + list(ed.metrics)))
    show(ev.eval(exe))
    show(ed.eval(exe))


@section
def nets_all():
    x = L.data("img", [3, 8, 8])
    a = fluid.nets.img_conv_group(x, [4, 4], 2, conv_padding=1, conv_filter_size=3, conv_act="relu", conv_with_batchnorm=True, conv_batchnorm_drop_rate=[0.0, 0.0], pool_stride=2, pool_type="max")
    b = fluid.nets.simple_img_conv_pool(x, 4, 3, 2, 2, act="relu", pool_type="avg", global_pooling=False)
    s = L.data("s", [5], lod_level=1)
    c = fluid.nets.sequence_conv_pool(s, 6, 3, act="tanh", pool_type="max")
    g = fluid.nets.glu(L.data("g", [6]), dim=1)
    q, k, v = [L.data(n, [3, 4]) for n in "qkv"]
    d = fluid.nets.scaled_dot_product_attention(q, k, v, num_heads=2, dropout_rate=0.0)
    loss = L.reduce_mean(a) + L.reduce_mean(b) + L.reduce_mean(c) + L.reduce_mean(g) + L.reduce_mean(d)
    R.seed(3)
    f = {"img": R.rand(2, 3, 8, 8).astype("float32"), "s": fluid.create_lod_tensor(R.rand(5, 5).astype("float32"), [[2, 3]], pl), "g": R.rand(2, 6).astype("float32")}
    f.update((n, R.rand(2, 3, 4).astype("float32")) for n in "qkv")
    train(loss, [f, f], fluid.optimizer.SGD(0.1), [a, b, c, g, d])




@section
def scopes():
    s = fluid.core.Scope()
    v = s.var("a")
    v.get_tensor().set(np.ones((2, 2), "float32"), pl)
    k = s.new_scope()
    k.var("b").get_tensor().set(np.zeros((1,), "int64"), pl)
    print(k.find_var("a") is not None, s.find_var("b"), np.array(k.find_var("a").get_tensor()).sum())
    s.drop_kids()
    with fluid.scope_guard(s):
        print(fluid.global_scope().find_var("a") is not None)
        fluid.executor.global_scope().find_var("a").get_tensor().set(np.full((3,), 2, "float32"), pl)
    print(np.array(s.find_var("a").get_tensor()), v.get_tensor().shape(), v.is_int() if hasattr(v, "is_int") else "")
    print(fluid.executor._fetch_var("a", s) if hasattr(fluid.executor, "_fetch_var") else "")
    from paddle.fluid.executor import as_numpy
    print(as_numpy(v.get_tensor()), v.get_tensor()._is_initialized())
    from paddle.fluid import default_scope_funcs as D
    D.enter_local_scope()
    D.var("z")
    print(D.find_var("z") is not None, D.get_cur_scope() is not None)
    D.leave_local_scope()
    print(D.find_var("z"))
    D.scoped_function(lambda: print("in"))


@section
def unique_names():
    U = fluid.unique_name
    print(U.generate("fc"), U.generate("fc"), U.generate("x.y"))
    with U.guard("new_"):
        print(U.generate("fc"), U.generate("fc"))
    with U.guard():
        print(U.generate("fc"))
    old = U.switch()
    print(U.generate("fc"))
    U.switch(old[0] if isinstance(old, tuple) else old)
    print(U.generate("fc"))
    with fluid.name_scope("s1"):
        with fluid.name_scope("s2"):
            a = L.fill_constant([1], "float32", 1.0)
        with fluid.name_scope("s2"):
            b = a + 1.0
    print([o.attr("op_namescope") for o in fluid.default_main_program().global_block().ops])




@section
def lr_all():
    x, y, p, loss = reg()
    step = L.autoincreased_step_counter("@my_step@", begin=1, step=2)
    rates = [L.exponential_decay(0.1, 2, 0.5, True), L.natural_exp_decay(0.1, 2, 0.5), L.inverse_time_decay(0.1, 2, 0.5, True),
             L.polynomial_decay(0.1, 3, 0.01, 2.0, True), L.piecewise_decay([2, 4], [0.1, 0.05, 0.01]), L.noam_decay(64, 5),
             L.cosine_decay(0.1, 2, 3), L.linear_lr_warmup(0.1, 3, 0.01, 0.1), L.linear_lr_warmup(L.piecewise_decay([3], [0.1, 0.02]), 2, 0.0, 0.1)]
    opt = fluid.optimizer.Momentum(rates[8], 0.9)
    opt.minimize(loss)
    train(loss, feeds(5), None, rates + [step])


@section
def regularizers_and_clips():
    R_ = fluid.regularizer
    x = L.data("x", [4])
    y = L.data("y", [1])
    h = L.fc(x, 3, param_attr=fluid.ParamAttr(regularizer=R_.L1Decay(0.1), learning_rate=2.0), bias_attr=fluid.ParamAttr(trainable=False, initializer=fluid.initializer.Constant(0.1)))
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByValue(0.05, -0.05), param_list=[h.block.program.global_block().all_parameters()[0]])
    p = L.fc(h, 1, param_attr=fluid.ParamAttr(name="w2", do_model_average=True))
    fluid.clip.set_gradient_clip(fluid.clip.GradientClipByNorm(0.1), param_list=["w2"])
    loss = L.mean(L.square_error_cost(p, y))
    train(loss, feeds(3), fluid.optimizer.SGD(0.5, regularization=R_.L2DecayRegularizer(0.2)), ["w2", "fc_0.w_0", "fc_0.b_0"])


@section
def initializers_exact():
    I = fluid.initializer
    make = [I.Constant(2.5), I.NumpyArrayInitializer(np.arange(6).reshape(2, 3).astype("float32")), I.ConstantInitializer(1)]
    ps = [L.create_parameter([2, 3], "float32", default_initializer=m) for m in make]
    b = L.create_parameter([2, 2, 4, 4], "float32", default_initializer=I.Bilinear())
    rnd = [L.create_parameter([200, 50], "float32", default_initializer=m) for m in
           [I.Uniform(-0.3, 0.3, seed=1), I.Normal(0.5, 0.1, seed=2), I.TruncatedNormal(0.0, 1.0, seed=3), I.Xavier(uniform=False), I.Xavier(fan_in=10), I.MSRA(uniform=False), I.MSRAInitializer(fan_in=8)]]
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    show(exe.run(fetch_list=ps + [b]))
    for v in exe.run(fetch_list=rnd):
        print("%.1f %.1f" % (v.mean() + 0.001, v.std()))
    with I.init_on_cpu() if hasattr(I, "init_on_cpu") else fluid.name_scope("x"):
        L.fill_constant([1], "float32", 1.0)
    print(I.force_init_on_cpu() if hasattr(I, "force_init_on_cpu") else False)
    attempt(lambda: L.create_parameter([2, 3], "float32", default_initializer=I.NumpyArrayInitializer([1, 2])))
    attempt(lambda: L.create_parameter([2, 3], "float32", default_initializer=I.Bilinear()))
