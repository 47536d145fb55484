"""Connectionist temporal classification: the loss, the greedy decoder, the edit distance."""

from program_model import Model, lengths, ragged, repeat

VARIANTS = ("ragged", "norm_by_times")
CLASSES = 4


def data(rng):
    frames, labels = lengths(rng, 3, 5, 9), lengths(rng, 3, 1, 4)
    return {
        "frames": ragged(rng, frames, 6),
        "text": (rng.randint(1, CLASSES + 1, (sum(labels), 1)).astype("int32"), [labels]),
    }


def build(fluid, variant):
    layers = fluid.layers
    frames = layers.data("frames", [6], lod_level=1)
    text = layers.data("text", [1], dtype="int32", lod_level=1)
    hidden = layers.dynamic_gru(layers.fc(layers.sequence_conv(frames, 8, act="relu"), 12), 4)
    logits = layers.fc(hidden, CLASSES + 1)
    cost = layers.warpctc(logits, text, blank=0, norm_by_times=variant == "norm_by_times")
    loss = layers.reduce_sum(cost)
    decoded = layers.ctc_greedy_decoder(layers.softmax(logits), blank=0)
    distance, count = layers.edit_distance(decoded, layers.cast(text, "int64"), normalized=False)
    return Model(loss, repeat(data), [cost, logits, count], train=lambda: fluid.optimizer.SGD(0.05).minimize(loss))
