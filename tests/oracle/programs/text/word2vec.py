"""An n-gram language model: four words share one sparse embedding by its name."""

from program_model import Model, repeat

DICT = 50


def data(rng):
    words = rng.randint(0, DICT, (16, 5)).astype("int64")
    words[:, 4] = (words[:, 0] + 1) % DICT
    return dict(zip(("firstw", "secondw", "thirdw", "fourthw", "nextw"), (words[:, i : i + 1] for i in range(5))))


def build(fluid):
    names = ["firstw", "secondw", "thirdw", "fourthw", "nextw"]
    words = [fluid.layers.data(name=n, shape=[1], dtype="int64") for n in names]
    embeds = [
        fluid.layers.embedding(input=w, size=[DICT, 8], dtype="float32", is_sparse=True, param_attr="shared_w")
        for w in words[:4]
    ]
    concat = fluid.layers.concat(input=embeds, axis=1)
    hidden = fluid.layers.fc(input=concat, size=16, act="sigmoid")
    predict = fluid.layers.fc(input=hidden, size=DICT, act="softmax")
    cost = fluid.layers.cross_entropy(input=predict, label=words[4])
    avg_cost = fluid.layers.mean(cost)
    return Model(avg_cost, repeat(data), [predict], train=lambda: fluid.optimizer.SGD(learning_rate=0.5).minimize(avg_cost))
