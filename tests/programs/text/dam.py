"""DAM: stacked self and cross attention between an utterance and a response, a 3-D convolution over the layers' match
matrices (Zhou et al., 2018)."""

import numpy as np

from program_model import Model, repeat

BATCH, TURNS, TIME, WORDS, WIDTH, STACKS = 2, 2, 6, 30, 8, 2


def data(rng):
    feed = {"response": rng.randint(1, WORDS, (BATCH, TIME, 1)).astype("int64")}
    feed["label"] = rng.randint(0, 2, (BATCH, 1)).astype("float32")

    def mask():
        length = rng.randint(2, TIME + 1, (BATCH, 1, 1))
        return (np.arange(TIME)[None, :, None] < length).astype("float32")

    feed["response_mask"] = mask()
    for i in range(TURNS):
        feed["turn_%d" % i] = rng.randint(1, WORDS, (BATCH, TIME, 1)).astype("int64")
        feed["turn_mask_%d" % i] = mask()
    return feed


def block(fluid, name, query, key, value, q_mask, k_mask):
    """Attention, residual, normalisation, two projections, residual, normalisation."""
    layers = fluid.layers

    def named(what):
        return fluid.ParamAttr(name="%s.%s" % (name, what))

    def norm(x, what):
        return layers.layer_norm(
            x,
            begin_norm_axis=2,
            epsilon=1e-6,
            param_attr=fluid.ParamAttr(name="%s.%s_w" % (name, what), initializer=fluid.initializer.Constant(1.0)),
            bias_attr=fluid.ParamAttr(name="%s.%s_b" % (name, what), initializer=fluid.initializer.Constant(0.0)),
        )

    logits = layers.scale(layers.matmul(query, key, transpose_y=True), scale=WIDTH**-0.5)
    mask = layers.matmul(q_mask, k_mask, transpose_y=True)
    another = layers.scale(mask, scale=float(2**32 - 1), bias=float(-1), bias_after_scale=False)
    attended = layers.matmul(layers.softmax(layers.elementwise_add(mask * logits, another)), value)
    x = norm(layers.elementwise_add(query, attended), "layer_norm_1")
    inner = layers.fc(x, WIDTH, num_flatten_dims=2, param_attr=named("ffn_w0"), bias_attr=named("ffn_b0"), act="relu")
    outer = layers.fc(inner, WIDTH, num_flatten_dims=2, param_attr=named("ffn_w1"), bias_attr=named("ffn_b1"))
    return norm(layers.elementwise_add(outer, x), "layer_norm_2")


def build(fluid):
    layers = fluid.layers

    def text(name):
        return layers.data(name=name, shape=[BATCH, TIME, 1], dtype="int64", append_batch_size=False)

    def mask(name):
        return layers.data(name=name, shape=[BATCH, TIME, 1], dtype="float32", append_batch_size=False)

    def embed(ids):
        return layers.embedding(
            input=ids,
            size=[WORDS, WIDTH],
            is_sparse=True,
            param_attr=fluid.ParamAttr(name="word_embedding", initializer=fluid.initializer.Normal(scale=0.1)),
        )

    response, response_mask = embed(text("response")), mask("response_mask")
    label = layers.data(name="label", shape=[BATCH, 1], dtype="float32", append_batch_size=False)
    stack = [response]
    for i in range(STACKS):
        stack.append(
            block(fluid, "response_self_stack%d" % i, stack[-1], stack[-1], stack[-1], response_mask, response_mask)
        )
    similarity = []
    for turn in range(TURNS):
        turn_mask = mask("turn_mask_%d" % turn)
        turns = [embed(text("turn_%d" % turn))]
        for i in range(STACKS):
            turns.append(block(fluid, "turn_self_stack%d" % i, turns[-1], turns[-1], turns[-1], turn_mask, turn_mask))
        maps = []
        for i in range(STACKS + 1):
            t_a_r = block(fluid, "t_attend_r_%d" % i, turns[i], stack[i], stack[i], turn_mask, response_mask)
            r_a_t = block(fluid, "r_attend_t_%d" % i, stack[i], turns[i], turns[i], response_mask, turn_mask)
            maps.append(layers.matmul(turns[i], stack[i], transpose_y=True))
            maps.append(layers.matmul(t_a_r, r_a_t, transpose_y=True))
        similarity.append(layers.stack(maps, axis=1))
    sim = layers.stack(similarity, axis=2) * (WIDTH**-0.5)
    conv = layers.conv3d(sim, num_filters=4, filter_size=[2, 3, 3], padding=[1, 1, 1], act="elu")
    pooled = layers.pool3d(input=conv, pool_size=3, pool_stride=3, pool_type="max")
    logits = layers.fc(layers.flatten(pooled, axis=1), size=1)
    loss = layers.reduce_mean(layers.sigmoid_cross_entropy_with_logits(logits, label))

    def train():
        clip = fluid.clip.GradientClipByValue(min=-1.0, max=1.0)
        schedule = layers.exponential_decay(learning_rate=1e-3, decay_steps=2, decay_rate=0.9, staircase=True)
        fluid.optimizer.Adam(learning_rate=schedule, grad_clip=clip).minimize(loss)

    return Model(loss, repeat(data, 5), [layers.sigmoid(logits)], train)
