"""Choosing by row (IfElse), by step (Switch), and by value (cond, logical operators)."""

from program_model import Model, repeat

VARIANTS = ("ifelse", "switch_lr", "cond", "logical", "case")


def data(rng):
    return {"image": rng.uniform(-1, 1, (12, 16)).astype("float32"), "label": rng.randint(0, 10, (12, 1)).astype("int64")}


def if_else(fluid, image, label):
    layers = fluid.layers
    limit = layers.fill_constant_batch_size_like(input=label, dtype="int64", shape=[1], value=5.0)
    cond = layers.less_than(x=label, y=limit)
    ie = layers.IfElse(cond)
    with ie.true_block():
        true_image = ie.input(image)
        hidden = layers.fc(input=true_image, size=100, act="tanh")
        prob = layers.fc(input=hidden, size=10, act="softmax")
        ie.output(prob)
    with ie.false_block():
        false_image = ie.input(image)
        hidden = layers.fc(input=false_image, size=200, act="tanh")
        prob = layers.fc(input=hidden, size=10, act="softmax")
        ie.output(prob)
    return ie()[0]


def switch_rate(fluid):
    layers = fluid.layers
    global_step = layers.autoincreased_step_counter(counter_name="@MY_STEP@", begin=0, step=1)
    lr = layers.create_global_var(shape=[1], value=0.0, dtype="float32", persistable=True, name="learning_rate")
    three = layers.fill_constant(shape=[1], dtype="int64", value=3)
    nine = layers.fill_constant(shape=[1], dtype="int64", value=9)
    with layers.Switch() as switch:
        with switch.case(layers.less_than(global_step, three)):
            layers.assign(layers.fill_constant([1], "float32", 0.2), lr)
        with switch.case(layers.less_than(global_step, nine)):
            layers.assign(layers.fill_constant([1], "float32", 0.05), lr)
        with switch.default():
            layers.assign(layers.fill_constant([1], "float32", 0.01), lr)
    return lr


def build(fluid, variant):
    layers = fluid.layers
    image = layers.data(name="image", shape=[16], dtype="float32")
    label = layers.data(name="label", shape=[1], dtype="int64")
    if variant == "logical":
        positive = layers.greater_than(image, layers.zeros_like(image))
        small = layers.less_than(layers.abs(image), layers.fill_constant([1], "float32", 0.5))
        outs = [
            layers.logical_and(positive, small),
            layers.logical_or(positive, small),
            layers.logical_xor(positive, small),
            layers.logical_not(small),
            layers.reduce_any(positive, dim=1),
            layers.reduce_all(small, dim=1),
            layers.cast(positive, "float32"),
            layers.isfinite(image),
            layers.where(small),
            layers.is_empty(image),
        ]
        return Model(None, repeat(data, 2), outs)
    extra = []
    if variant == "ifelse":
        prob = if_else(fluid, image, label)
    else:
        hidden = layers.fc(image, 12, act="tanh")
        if variant == "cond":
            first = layers.reduce_mean(image) < 0.0
            hidden = layers.cond(first, lambda: layers.scale(hidden, 2.0), lambda: layers.fc(hidden, 12, act="sigmoid"))
        if variant == "case":
            mean = layers.reduce_mean(image)
            low, high = mean < -0.03, mean > 0.03
            hidden = layers.case(
                [(low, lambda: layers.scale(hidden, 2.0)), (high, lambda: layers.tanh(hidden))],
                lambda: layers.square(hidden),
            )
        prob = layers.fc(hidden, 10, act="softmax")
    loss = layers.mean(layers.cross_entropy(input=prob, label=label))
    if variant == "switch_lr":
        extra.append(switch_rate(fluid))
    rate = extra[0] if extra else 0.2
    return Model(loss, repeat(data), [prob] + extra, train=lambda: fluid.optimizer.SGD(learning_rate=rate).minimize(loss))
