"""RNN search: GRU encoder both ways, a decoder that attends to it in a DynamicRNN (Bahdanau et al., 2014).

Once trained, a second Program that shares the parameters by name translates by beam search in a While loop.
"""

import numpy as np

from program_model import Model, lengths, ragged_ids, repeat

WORDS, WIDTH, HIDDEN, BEAM, MAX_LENGTH, START, END = 15, 6, 5, 3, 6, 0, 1


def data(rng):
    trg = lengths(rng, 4, 1, 6)
    return {
        "src": ragged_ids(rng, lengths(rng, 4, 1, 6), WORDS),
        "trg": ragged_ids(rng, trg, WORDS),
        "trg_next": ragged_ids(rng, trg, WORDS),
    }


class Translator(object):
    """The parts both Programs are made of; every parameter is named, so the second Program finds the first's."""

    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def attr(self, name):
        return self.fluid.ParamAttr(name=name, initializer=self.fluid.initializer.Uniform(-0.5, 0.5))

    def fc(self, x, size, name, act=None, bias=False):
        attrs = (
            [self.attr("%s_w%d" % (name, i)) for i in range(len(x))] if isinstance(x, list) else self.attr(name + "_w")
        )
        return self.layers.fc(x, size, act=act, param_attr=attrs, bias_attr=name + "_b" if bias else False)

    def embed(self, ids, name):
        return self.layers.embedding(ids, size=[WORDS, WIDTH], dtype="float32", param_attr=self.attr(name))

    def encode(self):
        layers = self.layers
        src = layers.data(name="src", shape=[1], dtype="int64", lod_level=1)
        emb = self.embed(src, "source_embedding")
        sides = []
        for name, reverse in (("forward", False), ("backward", True)):
            gates = self.fc(emb, HIDDEN * 3, "encoder_" + name)
            sides.append(
                layers.dynamic_gru(
                    gates, HIDDEN, is_reverse=reverse, param_attr=name + "_gru_w", bias_attr=name + "_gru_b"
                )
            )
        encoded = layers.concat(sides, axis=1)
        boot = self.fc(layers.sequence_first_step(sides[1]), HIDDEN, "boot", act="tanh")
        return encoded, self.fc(encoded, HIDDEN, "encoded_proj"), boot

    def attend(self, encoded, projected, state):
        layers = self.layers
        state_proj = self.fc(state, HIDDEN, "state_proj")
        expanded = layers.sequence_expand(x=state_proj, y=projected)
        weights = self.fc(layers.tanh(layers.elementwise_add(projected, expanded)), 1, "attention")
        weights = layers.reshape(layers.sequence_softmax(input=weights), shape=[-1])
        scaled = layers.elementwise_mul(x=encoded, y=weights, axis=0)
        return layers.sequence_pool(input=scaled, pool_type="sum")

    def step(self, word, state, context):
        gates = self.fc([word, context], HIDDEN * 3, "decoder")
        hidden, _, _ = self.layers.gru_unit(
            input=gates, hidden=state, size=HIDDEN * 3, param_attr=self.attr("decoder_gru_w"), bias_attr="decoder_gru_b"
        )
        return hidden, self.fc(hidden, WORDS, "output", act="softmax", bias=True)


def training(fluid):
    layers, net = fluid.layers, Translator(fluid)
    encoded, projected, boot = net.encode()
    trg = layers.data(name="trg", shape=[1], dtype="int64", lod_level=1)
    label = layers.data(name="trg_next", shape=[1], dtype="int64", lod_level=1)
    emb = net.embed(trg, "target_embedding")
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(emb)
        kept, kept_proj = rnn.static_input(encoded), rnn.static_input(projected)
        state = rnn.memory(init=boot, need_reorder=True)
        hidden, out = net.step(word, state, net.attend(kept, kept_proj, state))
        rnn.update_memory(state, hidden)
        rnn.output(out)
    prediction = rnn()
    return layers.mean(layers.cross_entropy(input=prediction, label=label)), prediction


def translation(fluid):
    """A beam is a level of LoD: read the last step, expand states to it, score, keep the best, write the next step."""
    layers, net = fluid.layers, Translator(fluid)
    encoded, projected, boot = net.encode()
    init_ids = layers.data(name="init_ids", shape=[1], dtype="int64", lod_level=2)
    init_scores = layers.data(name="init_scores", shape=[1], dtype="float32", lod_level=2)
    limit = layers.fill_constant(shape=[1], dtype="int64", value=MAX_LENGTH)
    counter = layers.zeros(shape=[1], dtype="int64", force_cpu=True)
    arrays = {}
    for name, value in (
        ("state", boot),
        ("ids", init_ids),
        ("scores", init_scores),
        ("encoded", encoded),
        ("projected", projected),
    ):
        arrays[name] = layers.array_write(value, i=counter)
    cond = layers.less_than(x=counter, y=limit)
    loop = layers.While(cond=cond)
    with loop.block():
        now = {name: layers.array_read(array=array, i=counter) for name, array in sorted(arrays.items())}
        state = layers.sequence_expand(now["state"], now["scores"])
        kept = layers.sequence_expand(now["encoded"], now["scores"])
        kept_proj = layers.sequence_expand(now["projected"], now["scores"])
        hidden, score = net.step(net.embed(now["ids"], "target_embedding"), state, net.attend(kept, kept_proj, state))
        score = layers.lod_reset(x=score, y=now["scores"])
        top_scores, top_ids = layers.topk(score, k=BEAM)
        total = layers.elementwise_add(layers.log(top_scores), layers.reshape(now["scores"], shape=[-1]), axis=0)
        ids, scores = layers.beam_search(now["ids"], now["scores"], top_ids, total, BEAM, end_id=END, level=0)
        layers.increment(x=counter, value=1, in_place=True)
        layers.array_write(hidden, array=arrays["state"], i=counter)
        layers.array_write(ids, array=arrays["ids"], i=counter)
        layers.array_write(scores, array=arrays["scores"], i=counter)
        layers.array_write(kept, array=arrays["encoded"], i=counter)
        layers.array_write(kept_proj, array=arrays["projected"], i=counter)
        more = layers.logical_and(x=layers.less_than(x=counter, y=limit), y=layers.logical_not(layers.is_empty(x=ids)))
        layers.assign(more, cond)
    return layers.beam_search_decode(arrays["ids"], arrays["scores"], beam_size=BEAM, end_id=END)


def build(fluid):
    loss, prediction = training(fluid)
    feeds = repeat(data, 5)
    decoding = fluid.Program()
    with fluid.program_guard(decoding, fluid.Program()), fluid.unique_name.guard():
        ids, scores = translation(fluid)
    ones = [[1] * 4, [1] * 4]
    feed = {
        "src": feeds[0]["src"],
        "init_ids": (np.full((4, 1), START, "int64"), ones),
        "init_scores": (np.zeros((4, 1), "float32"), ones),
    }

    def train():
        fluid.optimizer.Adam(
            learning_rate=0.01, regularization=fluid.regularizer.L2DecayRegularizer(regularization_coeff=1e-3)
        ).minimize(loss)

    return Model(loss, feeds, [prediction], train, test=(decoding, feed, [ids, scores]))
