"""Click prediction: sparse slots of many ids each, summed, with dense features; Adagrad and AUC."""

from program_model import Model, lengths, ragged_ids, repeat

SLOTS = 4
VOCABULARY = 100


def data(rng):
    feed = {"dense": rng.uniform(0, 1, (12, 3)).astype("float32"), "click": rng.randint(0, 2, (12, 1)).astype("int64")}
    for slot in range(SLOTS):
        feed["slot_%d" % slot] = ragged_ids(rng, lengths(rng, 12, 1, 5), VOCABULARY)
    return feed


def build(fluid):
    dense = fluid.layers.data(name="dense", shape=[3], dtype="float32")
    slots = [fluid.layers.data(name="slot_%d" % i, shape=[1], dtype="int64", lod_level=1) for i in range(SLOTS)]
    label = fluid.layers.data(name="click", shape=[1], dtype="int64")

    def embed(ids):
        emb = fluid.layers.embedding(
            input=ids,
            size=[VOCABULARY, 6],
            is_sparse=True,
            param_attr=fluid.ParamAttr(name="SparseFeatFactors", initializer=fluid.initializer.Uniform(-0.1, 0.1)),
        )
        return fluid.layers.sequence_pool(input=emb, pool_type="sum")

    concat = fluid.layers.concat([embed(s) for s in slots] + [dense], axis=1)
    fc = fluid.layers.fc(
        input=concat, size=16, act="relu", param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(scale=0.2))
    )
    predict = fluid.layers.fc(input=fc, size=2, act="softmax")
    cost = fluid.layers.cross_entropy(input=predict, label=label)
    avg_cost = fluid.layers.reduce_sum(cost)
    accuracy = fluid.layers.accuracy(input=predict, label=label)
    auc_var, batch_auc_var, auc_states = fluid.layers.auc(input=predict, label=label, num_thresholds=2**8, slide_steps=5)
    return Model(
        avg_cost,
        repeat(data),
        [predict, accuracy, auc_var, batch_auc_var],
        train=lambda: fluid.optimizer.Adagrad(learning_rate=0.05).minimize(avg_cost),
    )
