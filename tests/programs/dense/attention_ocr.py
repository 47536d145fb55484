"""OCR with attention: a convolutional recurrent encoder, a GRU decoder over its columns in a DynamicRNN (Shi et al., 2016).

Recognition is a Program of its own: the decoder inside a While loop under beam search.
"""

import numpy as np

from program_model import Model, lengths, ragged_ids, repeat

BATCH, HEIGHT, LENGTH, CLASSES, WIDTH, HIDDEN = 3, 8, 24, 9, 6, 6
BEAM, MAX_LENGTH, START, END = 2, 5, 0, 1


def data(rng):
    words = lengths(rng, BATCH, 2, 5)
    return {
        "pixel": rng.uniform(-1, 1, (BATCH, 1, HEIGHT, LENGTH)).astype("float32"),
        "label_in": ragged_ids(rng, words, CLASSES),
        "label_out": ragged_ids(rng, words, CLASSES),
    }


class Reader(object):
    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def fc(self, x, size, name, act=None, bias=False):
        count = len(x) if isinstance(x, list) else 1
        attrs = [self.fluid.ParamAttr(name="%s_w%d" % (name, i)) for i in range(count)]
        return self.layers.fc(
            input=x,
            size=size,
            act=act,
            param_attr=attrs if count > 1 else attrs[0],
            bias_attr=self.fluid.ParamAttr(name=name + "_b") if bias else False,
        )

    def conv_bn_pool(self, x, width, pool, name, is_test):
        layers, attr = self.layers, self.fluid.ParamAttr
        x = layers.conv2d(x, width, 3, padding=1, param_attr=attr(name=name + "_conv_w"), bias_attr=False)
        x = layers.batch_norm(
            x,
            act="relu",
            is_test=is_test,
            param_attr=attr(name=name + "_bn_w"),
            bias_attr=attr(name=name + "_bn_b"),
            moving_mean_name=name + "_bn_mean",
            moving_variance_name=name + "_bn_variance",
        )
        return layers.pool2d(x, pool_size=pool, pool_type="max", pool_stride=pool, ceil_mode=True)

    def encode(self, images, is_test):
        layers = self.layers
        net = self.conv_bn_pool(images, 4, [2, 2], "c1", is_test)
        net = self.conv_bn_pool(net, 6, [2, 2], "c2", is_test)
        columns = layers.im2sequence(input=net, stride=[1, 1], filter_size=[net.shape[2], 1])
        sides = []
        for name, reverse in (("fwd", False), ("bwd", True)):
            gates = self.fc(columns, HIDDEN * 3, "enc_" + name)
            sides.append(
                layers.dynamic_gru(
                    input=gates,
                    size=HIDDEN,
                    is_reverse=reverse,
                    candidate_activation="relu",
                    param_attr=name + "_gru_w",
                    bias_attr=name + "_gru_b",
                )
            )
        vector = layers.concat(input=sides, axis=1)
        boot = self.fc(layers.sequence_first_step(input=sides[1]), HIDDEN, "boot", act="relu")
        return boot, vector, self.fc(vector, HIDDEN, "vector_proj")

    def attend(self, vector, proj, state):
        layers = self.layers
        expanded = layers.sequence_expand(x=self.fc(state, HIDDEN, "state_proj"), y=proj)
        mixed = layers.tanh(layers.elementwise_add(x=proj, y=expanded))
        weights = layers.sequence_softmax(input=self.fc(mixed, 1, "score"))
        weights = layers.reshape(x=weights, shape=[-1])
        return layers.sequence_pool(input=layers.elementwise_mul(x=vector, y=weights, axis=0), pool_type="sum")

    def step(self, word, state, context):
        gates = self.fc([context, word], HIDDEN * 3, "dec")
        hidden, _, _ = self.layers.gru_unit(
            input=gates, hidden=state, size=HIDDEN * 3, param_attr="dec_gru_w", bias_attr="dec_gru_b"
        )
        return hidden, self.fc(hidden, CLASSES + 2, "out", act="softmax", bias=True)

    def embed(self, ids):
        return self.layers.embedding(input=ids, size=[CLASSES + 2, WIDTH], dtype="float32", param_attr="char_emb")


def training(fluid):
    layers, net = fluid.layers, Reader(fluid)
    images = layers.data(name="pixel", shape=[1, HEIGHT, LENGTH], dtype="float32")
    label_in = layers.data(name="label_in", shape=[1], dtype="int64", lod_level=1)
    label_out = layers.data(name="label_out", shape=[1], dtype="int64", lod_level=1)
    boot, vector, proj = net.encode(images, is_test=False)
    emb = net.embed(label_in)
    rnn = layers.DynamicRNN()
    with rnn.block():
        word = rnn.step_input(emb)
        kept, kept_proj = rnn.static_input(vector), rnn.static_input(proj)
        state = rnn.memory(init=boot, need_reorder=True)
        hidden, out = net.step(word, state, net.attend(kept, kept_proj, state))
        rnn.update_memory(state, hidden)
        rnn.output(out)
    prediction = rnn()
    cost = layers.cross_entropy(input=prediction, label=label_out)
    return layers.reduce_sum(cost), prediction, label_out


def recognition(fluid):
    layers, net = fluid.layers, Reader(fluid)
    images = layers.data(name="pixel", shape=[1, HEIGHT, LENGTH], dtype="float32")
    init_ids = layers.data(name="init_ids", shape=[1], dtype="int64", lod_level=2)
    init_scores = layers.data(name="init_scores", shape=[1], dtype="float32", lod_level=2)
    boot, vector, proj = net.encode(images, is_test=True)
    limit = layers.fill_constant(shape=[1], dtype="int64", value=MAX_LENGTH)
    counter = layers.zeros(shape=[1], dtype="int64", force_cpu=True)
    states, ids, scores = (layers.array_write(v, i=counter) for v in (boot, init_ids, init_scores))
    vectors, projs = layers.array_write(vector, i=counter), layers.array_write(proj, i=counter)
    cond = layers.less_than(x=counter, y=limit)
    loop = layers.While(cond=cond)
    with loop.block():
        pre_ids, pre_score = layers.array_read(array=ids, i=counter), layers.array_read(array=scores, i=counter)
        state = layers.sequence_expand(layers.array_read(array=states, i=counter), pre_score)
        kept = layers.sequence_expand(layers.array_read(array=vectors, i=counter), pre_score)
        kept_proj = layers.sequence_expand(layers.array_read(array=projs, i=counter), pre_score)
        hidden, score = net.step(net.embed(pre_ids), state, net.attend(kept, kept_proj, state))
        score = layers.lod_reset(x=score, y=pre_score)
        top_scores, top_ids = layers.topk(score, k=BEAM)
        total = layers.elementwise_add(x=layers.log(top_scores), y=layers.reshape(pre_score, shape=[-1]), axis=0)
        chosen, chosen_scores = layers.beam_search(pre_ids, pre_score, top_ids, total, BEAM, end_id=END, level=0)
        layers.increment(x=counter, value=1, in_place=True)
        for value, array in (
            (hidden, states),
            (chosen, ids),
            (chosen_scores, scores),
            (kept, vectors),
            (kept_proj, projs),
        ):
            layers.array_write(value, array=array, i=counter)
        length_cond = layers.less_than(x=counter, y=limit)
        layers.logical_and(x=length_cond, y=layers.logical_not(layers.is_empty(x=chosen)), out=cond)
    return layers.beam_search_decode(ids, scores, beam_size=BEAM, end_id=END)


def build(fluid):
    layers = fluid.layers
    loss, prediction, label = training(fluid)
    _, best = layers.topk(input=prediction, k=1)
    ignored = [START, END]
    distance, _ = layers.edit_distance(input=best, label=label, normalized=False, ignored_tokens=ignored)
    feeds = repeat(data, 5)
    reading = fluid.Program()
    with fluid.program_guard(reading, fluid.Program()), fluid.unique_name.guard():
        found = recognition(fluid)
    ones = [[1] * BATCH, [1] * BATCH]
    feed = {
        "pixel": feeds[0]["pixel"],
        "init_ids": (np.full((BATCH, 1), START, "int64"), ones),
        "init_scores": (np.zeros((BATCH, 1), "float32"), ones),
    }

    def train():
        schedule = layers.piecewise_decay([3], [0.01, 0.001])
        fluid.optimizer.Adadelta(
            learning_rate=schedule, epsilon=1e-6, rho=0.9, regularization=fluid.regularizer.L2Decay(0.0004)
        ).minimize(loss)

    return Model(loss, feeds, [prediction, distance], train, test=(reading, feed, list(found)))
