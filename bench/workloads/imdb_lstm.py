"""Sentiment by one LSTM over 32 reviews of unequal length (3,900 words), unpadded, Adam."""

import numpy as np

RNG = np.random.RandomState(0)
VOCABULARY, WIDTH, HIDDEN, BATCH = 5147, 128, 128, 32
LENGTHS = RNG.randint(40, 204, BATCH)
LENGTHS[-1] += 3900 - LENGTHS.sum()
IDS = RNG.randint(0, VOCABULARY, (int(LENGTHS.sum()), 1)).astype("int64")
LABELS = RNG.randint(0, 2, (BATCH, 1)).astype("int64")


def fluid_model(fluid):
    words = fluid.layers.data("words", [1], dtype="int64", lod_level=1)
    label = fluid.layers.data("label", [1], dtype="int64")
    x = fluid.layers.embedding(words, [VOCABULARY, WIDTH])
    x = fluid.layers.fc(x, 4 * HIDDEN)
    hidden, _ = fluid.layers.dynamic_lstm(x, 4 * HIDDEN, use_peepholes=False)
    last = fluid.layers.sequence_pool(hidden, "max")
    prediction = fluid.layers.fc(last, 2, act="softmax")
    loss = fluid.layers.mean(fluid.layers.cross_entropy(prediction, label))
    fluid.optimizer.Adam(0.002).minimize(loss)
    ids = fluid.create_lod_tensor(IDS, [LENGTHS.tolist()], fluid.CPUPlace())
    return {"words": ids, "label": LABELS}, loss


def torch_step(compiled=False):
    """Packed, as torch offers for unequal lengths; the padded form is about as fast as Fluid's."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

    table, lstm, head = nn.Embedding(VOCABULARY, WIDTH), nn.LSTM(WIDTH, HIDDEN), nn.Linear(HIDDEN, 2)
    parameters = [p for m in (table, lstm, head) for p in m.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.002)
    lengths = LENGTHS.tolist()

    def step():
        x = table(torch.from_numpy(IDS)[:, 0])
        packed = pack_sequence(list(x.split(lengths)), enforce_sorted=False)
        hidden, _ = pad_packed_sequence(lstm(packed)[0], padding_value=-2.0)
        loss = nn.functional.cross_entropy(head(hidden.max(0)[0]), torch.from_numpy(LABELS)[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
