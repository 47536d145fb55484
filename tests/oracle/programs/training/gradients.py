"""Gradients by hand: variables used again, stops, chosen parameters, and derivatives of intermediates."""

from program_model import Model, repeat

VARIANTS = (
    "reuse",
    "shared_weight",
    "stop_gradient",
    "no_grad_set",
    "parameter_list",
    "gradients",
    "target_gradients",
    "calc_gradient",
    "append_backward",
    "apply_gradients",
    "penalty",
    "two_losses",
)


def data(rng):
    x = rng.uniform(-1, 1, (8, 4)).astype("float32")
    return {"x": x, "y": x.sum(1, keepdims=True)}


def build(fluid, variant):
    layers = fluid.layers
    x = layers.data(name="x", shape=[4], dtype="float32", stop_gradient=variant not in ("gradients", "penalty"))
    y = layers.data(name="y", shape=[1], dtype="float32")
    # 1.8.5 drops second derivatives of operators that have none registered (tanh, mean, …); leaky_relu has one
    h = layers.fc(x, 4, act="leaky_relu" if variant == "penalty" else "tanh")
    if variant == "reuse":
        h = layers.elementwise_add(layers.elementwise_mul(h, h), layers.relu(h) + layers.sums([h, h, x]))
    if variant == "shared_weight":
        for _ in range(3):
            h = layers.fc(h, 4, param_attr="shared", bias_attr="shared_b", act="sigmoid")
    if variant == "stop_gradient":
        g = layers.fc(h, 4, act="tanh")
        g.stop_gradient = True
        h = layers.elementwise_add(h, g)
    predict = layers.fc(h, 1)
    loss = layers.mean(layers.square_error_cost(predict, y))
    fetch = [predict]
    sgd = fluid.optimizer.SGD(0.1)

    if variant == "gradients":
        fetch += fluid.gradients([loss], [h, x])
        return Model(None, repeat(data, 3), fetch + [loss])
    if variant == "target_gradients":
        weight = layers.fill_constant_batch_size_like(predict, [-1, 1], "float32", 0.3)
        fetch += fluid.gradients([predict, h], [h], target_gradients=[weight, None])
        return Model(None, repeat(data, 3), fetch)
    if variant == "calc_gradient":
        fetch.append(fluid.backward.calc_gradient(loss, h))
        return Model(None, repeat(data, 3), fetch)
    if variant == "append_backward":
        pairs = fluid.backward.append_backward(loss, parameter_list=["fc_1.w_0", "fc_0.w_0"])
        return Model(None, repeat(data, 3), fetch + [g for _, g in pairs])
    if variant == "penalty":
        grad = fluid.gradients([predict], [x])[0]
        norm = layers.sqrt(layers.reduce_sum(layers.square(grad), dim=1, keep_dim=True) + 1e-6)
        total = layers.elementwise_add(loss, layers.reduce_mean(layers.square(norm - 1.0)))
        return Model(total, repeat(data), [grad, norm], train=lambda: sgd.minimize(total))

    def train():
        if variant == "no_grad_set":
            sgd.minimize(loss, no_grad_set=set(["fc_0.w_0"]))
        elif variant == "parameter_list":
            sgd.minimize(loss, parameter_list=["fc_1.w_0", "fc_0.b_0"])
        elif variant == "apply_gradients":
            pairs = sgd.backward(loss)
            sgd.apply_gradients([(p, layers.scale(g, 0.5)) for p, g in pairs])
        elif variant == "two_losses":
            sgd.minimize(loss)
            fluid.optimizer.Adam(0.01).minimize(layers.reduce_sum(layers.square(h)))
        else:
            sgd.minimize(loss)

    return Model(loss, repeat(data), fetch, train)
