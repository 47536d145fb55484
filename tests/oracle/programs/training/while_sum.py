"""While over tensor arrays, trained through; a loop that only counts."""

from program_model import Model, repeat

VARIANTS = ("array", "assign")


def data(rng):
    return {"d%d" % i: rng.uniform(-1, 1, (5, 10)).astype("float32") for i in range(3)}


def build(fluid, variant):
    layers = fluid.layers
    d = [layers.data("d%d" % i, shape=[10], dtype="float32") for i in range(3)]
    i = layers.zeros(shape=[1], dtype="int64")
    i.stop_gradient = True
    n = layers.fill_constant(shape=[1], dtype="int64", value=3)
    n.stop_gradient = True
    if variant == "assign":
        total = layers.fill_constant([1], "float32", 0.0)
        step = layers.reduce_mean(d[0])
        cond = layers.less_than(x=i, y=n)
        loop = layers.While(cond=cond)
        with loop.block():
            layers.assign(layers.elementwise_add(total, step), total)
            layers.increment(x=i, value=1, in_place=True)
            layers.less_than(x=i, y=n, cond=cond)
        return Model(None, repeat(data, 2), [total, i, layers.scale(total, 2.0)])
    init = layers.fc(d[0], 10, param_attr="w0", bias_attr=False)
    data_array = layers.array_write(x=init, i=i)
    for k in range(1, 3):
        i = layers.increment(i, in_place=False)
        i.stop_gradient = True
        layers.array_write(d[k], i, array=data_array)
    i = layers.zeros(shape=[1], dtype="int64")
    i.stop_gradient = True
    mem_array = layers.array_write(x=layers.fc(d[0], 10, param_attr="w1", bias_attr=False, act="tanh"), i=i)
    cond = layers.less_than(x=i, y=n)
    loop = layers.While(cond=cond)
    with loop.block():
        current = layers.array_read(array=data_array, i=i)
        previous = layers.array_read(array=mem_array, i=i)
        result = layers.tanh(layers.sums(input=[current, layers.fc(previous, 10, param_attr="w2")]))
        layers.increment(x=i, in_place=True)
        layers.array_write(result, i=i, array=mem_array)
        layers.less_than(x=i, y=n, cond=cond)
    sum_result = layers.array_read(array=mem_array, i=n)
    loss = layers.mean(layers.square(sum_result))
    return Model(loss, repeat(data), [sum_result], train=lambda: fluid.optimizer.SGD(0.2).minimize(loss))
