"""N-gram word2vec: four context words share one sparse embedding, vocabulary 2,073, batch 100, SGD."""

import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, WIDTH, HIDDEN, BATCH = 2073, 32, 256, 100
WORDS = [RNG.randint(0, VOCABULARY, (BATCH, 1)).astype("int64") for _ in range(5)]


def fluid_model(fluid):
    words = [fluid.layers.data("w%d" % k, [1], dtype="int64") for k in range(5)]
    vectors = [
        fluid.layers.embedding(w, [VOCABULARY, WIDTH], is_sparse=True, param_attr=fluid.ParamAttr(name="shared"))
        for w in words[:4]
    ]
    hidden = fluid.layers.fc(fluid.layers.concat(vectors, axis=1), HIDDEN, act="sigmoid")
    prediction = fluid.layers.fc(hidden, VOCABULARY, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(prediction, words[4]))
    fluid.optimizer.SGD(0.001).minimize(loss)
    return {"w%d" % k: w for k, w in enumerate(WORDS)}, loss


def torch_step(compiled=False):
    import torch
    from torch import nn

    table = nn.Embedding(VOCABULARY, WIDTH, sparse=True)
    net = nn.Sequential(nn.Linear(4 * WIDTH, HIDDEN), nn.Sigmoid(), nn.Linear(HIDDEN, VOCABULARY))
    optimizer = torch.optim.SGD([*table.parameters(), *net.parameters()], 0.001)

    def step():
        words = [torch.from_numpy(w)[:, 0] for w in WORDS]
        hidden = torch.cat([table(w) for w in words[:4]], 1)
        loss = nn.functional.cross_entropy(net(hidden), words[4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
