"""An encoder block out of matmul, softmax, layer_norm, reshape and transpose; Noam schedule, label smoothing."""

import numpy as np

from program_model import Model, repeat

BATCH, TIME, WIDTH, HEADS, WORDS = 4, 5, 8, 2, 20


def data(rng):
    length = rng.randint(1, TIME + 1, (BATCH,))
    bias = [[[[0.0 if k < n else -1e4 for k in range(TIME)]] * TIME] * HEADS for n in length]
    return {
        "word": rng.randint(0, WORDS, (BATCH, TIME, 1)).astype("int64"),
        "pos": np.tile(np.arange(TIME).reshape(1, TIME, 1), (BATCH, 1, 1)).astype("int64"),
        "bias": np.array(bias, "float32"),
        "label": rng.randint(0, WORDS, (BATCH * TIME, 1)).astype("int64"),
    }


def attention(layers, q_in, bias):
    def heads(t):
        t = layers.fc(t, size=WIDTH, num_flatten_dims=2, bias_attr=False)
        return layers.transpose(layers.reshape(t, shape=[0, 0, HEADS, WIDTH // HEADS]), perm=[0, 2, 1, 3])

    q, k, v = heads(q_in), heads(q_in), heads(q_in)
    product = layers.matmul(x=q, y=k, transpose_y=True, alpha=(WIDTH // HEADS) ** -0.5)
    weights = layers.softmax(layers.elementwise_add(product, bias))
    weights = layers.dropout(weights, dropout_prob=0.0, dropout_implementation="upscale_in_train")
    out = layers.transpose(layers.matmul(weights, v), perm=[0, 2, 1, 3])
    out = layers.reshape(out, shape=[0, 0, WIDTH], inplace=True)
    return layers.fc(out, size=WIDTH, num_flatten_dims=2, bias_attr=False), weights


def build(fluid):
    layers = fluid.layers
    word = layers.data("word", [BATCH, TIME, 1], dtype="int64", append_batch_size=False)
    pos = layers.data("pos", [BATCH, TIME, 1], dtype="int64", append_batch_size=False)
    bias = layers.data("bias", [BATCH, HEADS, TIME, TIME], append_batch_size=False)
    label = layers.data("label", [BATCH * TIME, 1], dtype="int64", append_batch_size=False)
    emb = layers.embedding(
        word,
        [WORDS, WIDTH],
        padding_idx=0,
        param_attr=fluid.ParamAttr(name="word_emb", initializer=fluid.initializer.Normal(0.0, WIDTH**-0.5)),
    )
    emb = layers.scale(emb, scale=WIDTH**0.5)
    where = layers.embedding(pos, [TIME, WIDTH], param_attr=fluid.ParamAttr(name="pos_emb", trainable=False))
    where.stop_gradient = True
    x = layers.elementwise_add(emb, where)
    attended, weights = attention(layers, x, bias)
    x = layers.layer_norm(
        layers.elementwise_add(x, attended),
        begin_norm_axis=2,
        param_attr=fluid.initializer.Constant(1.0),
        bias_attr=fluid.initializer.Constant(0.0),
    )
    ffn = layers.fc(layers.fc(x, 16, num_flatten_dims=2, act="gelu"), WIDTH, num_flatten_dims=2)
    x = layers.layer_norm(layers.elementwise_add(x, ffn), begin_norm_axis=2)
    logits = layers.matmul(
        layers.reshape(x, [-1, WIDTH]), fluid.default_main_program().global_block().var("word_emb"), transpose_y=True
    )
    target = layers.label_smooth(label=layers.one_hot(label, depth=WORDS), epsilon=0.1)
    cost = layers.softmax_with_cross_entropy(logits=logits, label=target, soft_label=True)
    loss = layers.reduce_sum(cost) / float(BATCH * TIME)

    def train():
        rate = layers.noam_decay(WIDTH, 10)
        fluid.optimizer.Adam(rate, beta1=0.9, beta2=0.98, epsilon=1e-9).minimize(loss)

    return Model(loss, repeat(data), [weights, logits], train)
