"""CompiledProgram over one and two CPU places, and ParallelExecutor: gradients are averaged over places."""

from program_model import Model, repeat

VARIANTS = ("one", "two", "two_sum", "parallel_executor")


def data(rng):
    return {"x": rng.uniform(-1, 1, (8, 4)).astype("float32"), "label": rng.randint(0, 3, (8, 1)).astype("int64")}


def build(fluid, variant):
    x = fluid.layers.data("x", [4])
    label = fluid.layers.data("label", [1], dtype="int64")
    hidden = fluid.layers.fc(x, 6, act="tanh")
    out = fluid.layers.fc(hidden, 3, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(out, label))

    def compile_program(main, startup_scope):
        places = fluid.cpu_places(1 if variant == "one" else 2)
        strategy = fluid.BuildStrategy()
        if variant == "two_sum":
            strategy.reduce_strategy = fluid.BuildStrategy.ReduceStrategy.Reduce
            strategy.gradient_scale_strategy = fluid.BuildStrategy.GradientScaleStrategy.One
        if variant == "parallel_executor":
            return fluid.ParallelExecutor(use_cuda=False, loss_name=loss.name, main_program=main, scope=startup_scope)
        return fluid.CompiledProgram(main).with_data_parallel(loss_name=loss.name, build_strategy=strategy, places=places)

    return Model(
        loss,
        repeat(data),
        [out, loss],
        train=lambda: fluid.optimizer.Momentum(0.1, 0.9).minimize(loss),
        compiled=compile_program,
    )
