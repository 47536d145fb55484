from kit import draw, ex, fluid, np, section, show


def net():
    x = fluid.layers.data("x", [4])
    y = fluid.layers.data("y", [1], dtype="int64")
    h = fluid.layers.fc(x, 6, act="tanh")
    p = fluid.layers.fc(h, 3, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(p, y))
    return x, y, p, loss


R = np.random.RandomState(0)
FD = {"x": R.rand(8, 4).astype("float32"), "y": R.randint(0, 3, (8, 1)).astype("int64")}


@section
def compiled_plain():
    x, y, p, loss = net()
    fluid.optimizer.SGD(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    cp = fluid.CompiledProgram(fluid.default_main_program())
    for i in range(3):
        show(exe.run(cp, feed=FD, fetch_list=[loss, p]))


@section
def dp_strategies():
    x, y, p, loss = net()
    test = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.Momentum(0.1, 0.9).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    bs = fluid.BuildStrategy()
    bs.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.Reduce
    bs.memory_optimize = True
    bs.enable_inplace = True
    bs.fuse_all_reduce_ops = True
    bs.gradient_scale_strategy = fluid.BuildStrategy.GradientScaleStrategy.CoeffNumDevice
    bs.fuse_elewise_add_act_ops = True
    bs.fuse_all_optimizer_ops = True
    bs.sync_batch_norm = False
    bs.enable_sequential_execution = True
    bs.remove_unnecessary_lock = True
    bs.debug_graphviz_path = ""
    bs.fuse_broadcast_ops = True
    bs.fuse_relu_depthwise_conv = True
    es = fluid.ExecutionStrategy()
    es.num_threads = 2
    es.num_iteration_per_drop_scope = 10
    es.allow_op_delay = False
    es.num_iteration_per_run = 1
    es.use_thread_barrier = True if False else es.use_thread_barrier
    cp = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(
        loss_name=loss.name, build_strategy=bs, exec_strategy=es
    )
    tp = fluid.CompiledProgram(test).with_data_parallel(share_vars_from=cp)
    for i in range(3):
        show(exe.run(cp, feed=FD, fetch_list=[loss.name]))
    show(exe.run(tp, feed=FD, fetch_list=[loss.name, p.name]))
    show(
        exe.run(cp, feed=[{k: v[:4] for k, v in FD.items()}, {k: v[4:] for k, v in FD.items()}], fetch_list=[loss.name])
    )
    print(bs.reduce_strategy, es.num_threads)


@section
def pe():
    x, y, p, loss = net()
    test = fluid.default_main_program().clone(for_test=True)
    fluid.optimizer.Adam(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    pe = fluid.ParallelExecutor(
        use_cuda=False,
        loss_name=loss.name,
        main_program=fluid.default_main_program(),
        exec_strategy=fluid.ExecutionStrategy(),
        build_strategy=fluid.BuildStrategy(),
    )
    tpe = fluid.ParallelExecutor(use_cuda=False, main_program=test, share_vars_from=pe)
    print(pe.device_count)
    for i in range(3):
        show(pe.run([loss.name], feed=FD))
    show(pe.run(fetch_list=[loss.name, p.name], feed=FD, return_numpy=False)) if False else None
    show(tpe.run(fetch_list=[loss.name], feed=FD))
    pe.drop_local_exe_scopes()


@section
def places_arg():
    x, y, p, loss = net()
    fluid.optimizer.SGD(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    cp = fluid.compiler.CompiledProgram(fluid.default_main_program()).with_data_parallel(
        loss_name=loss.name, places=fluid.cpu_places(4)
    )
    for i in range(2):
        show(exe.run(cp, feed=FD, fetch_list=[loss], return_merged=True))
    try:
        exe.run(cp, feed={k: v[:3] for k, v in FD.items()}, fetch_list=[loss])
    except Exception as e:
        print(ex(e))
    try:
        show(exe.run(cp, feed=FD, fetch_list=[]))
    except Exception as e:
        print(ex(e))


@section
def unmerged():
    x, y, p, loss = net()
    fluid.optimizer.SGD(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    cp = fluid.compiler.CompiledProgram(fluid.default_main_program()).with_data_parallel(
        loss_name=loss.name, places=fluid.cpu_places(2)
    )
    r = exe.run(cp, feed=FD, fetch_list=[loss, p], return_merged=False)
    print(len(r), [np.array(q).shape for q in r])


@section
def lod_dp():
    w = fluid.layers.data("w", [1], dtype="int64", lod_level=1)
    y = fluid.layers.data("y", [1], dtype="int64")
    e = fluid.layers.embedding(w, [10, 4])
    s = fluid.layers.sequence_pool(e, "sum")
    p = fluid.layers.fc(s, 3, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(p, y))
    fluid.optimizer.Adagrad(0.1).minimize(loss)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    draw()
    cp = fluid.CompiledProgram(fluid.default_main_program()).with_data_parallel(loss_name=loss.name)
    t = fluid.create_lod_tensor(np.arange(9).reshape(9, 1).astype("int64"), [[2, 3, 1, 3]], fluid.CPUPlace())
    for i in range(2):
        show(exe.run(cp, feed={"w": t, "y": np.array([[0], [1], [2], [0]], "int64")}, fetch_list=[loss, p]))
    show(exe.run(cp, feed={"w": t, "y": np.array([[0], [1], [2], [0]], "int64")}, fetch_list=[e], return_numpy=False))
