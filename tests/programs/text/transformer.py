"""Transformer (Vaswani et al., 2017): encoder and decoder, label smoothing, Noam schedule; then decoding by a
While loop with cached keys and values and beam search, in a Program that shares the parameters by name."""

import numpy as np

from program_model import Model, repeat

BATCH, SRC, TRG, WORDS, WIDTH, HEADS, INNER, LAYERS = 3, 6, 5, 20, 8, 2, 16, 2
BEAM, MAX_OUT, START, END = 2, 5, 0, 1
FAR = -1e9


def pad_bias(lengths, keys, queries):
    outside = np.arange(keys)[None, :] >= lengths[:, None]
    return np.tile(np.where(outside, FAR, 0.0)[:, None, None, :], (1, HEADS, queries, 1)).astype("float32")


def positions(length):
    return np.tile(np.arange(length), (BATCH, 1))[:, :, None].astype("int64")


def data(rng):
    src_len, trg_len = rng.randint(2, SRC + 1, (BATCH,)), rng.randint(2, TRG + 1, (BATCH,))
    later = np.triu(np.full((TRG, TRG), FAR, "float32"), 1)
    weight = (np.arange(TRG)[None, :] < trg_len[:, None]).astype("float32")
    return {
        "src_word": rng.randint(0, WORDS, (BATCH, SRC, 1)).astype("int64"),
        "src_pos": positions(SRC),
        "src_slf_attn_bias": pad_bias(src_len, SRC, SRC),
        "trg_word": rng.randint(0, WORDS, (BATCH, TRG, 1)).astype("int64"),
        "trg_pos": positions(TRG),
        "trg_slf_attn_bias": np.tile(later, (BATCH, HEADS, 1, 1)),
        "trg_src_attn_bias": pad_bias(src_len, SRC, TRG),
        "lbl_word": rng.randint(0, WORDS, (BATCH * TRG, 1)).astype("int64"),
        "lbl_weight": weight.reshape(-1, 1),
    }


class Transformer(object):
    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def fc(self, x, size, name, act=None, bias=False, dims=2):
        return self.layers.fc(
            input=x,
            size=size,
            num_flatten_dims=dims,
            act=act,
            param_attr=self.fluid.ParamAttr(name=name + ".w_0"),
            bias_attr=self.fluid.ParamAttr(name=name + ".b_0") if bias else False,
        )

    def norm(self, x, name):
        return self.layers.layer_norm(
            x,
            begin_norm_axis=len(x.shape) - 1,
            param_attr=self.fluid.ParamAttr(name=name + "_scale", initializer=self.fluid.initializer.Constant(1.0)),
            bias_attr=self.fluid.ParamAttr(name=name + "_bias", initializer=self.fluid.initializer.Constant(0.0)),
        )

    def embed(self, word, pos, side):
        layers = self.layers
        table = self.fluid.ParamAttr(
            name=side + "_word_emb_table", initializer=self.fluid.initializer.Normal(0.0, WIDTH**-0.5)
        )
        out = layers.scale(
            layers.embedding(word, size=[WORDS, WIDTH], padding_idx=END, param_attr=table), scale=WIDTH**0.5
        )
        fixed = self.fluid.ParamAttr(name=side + "_pos_enc_table", trainable=False)
        where = layers.embedding(pos, size=[16, WIDTH], param_attr=fixed)
        where.stop_gradient = True
        return out + where

    def heads(self, x):
        x = self.layers.reshape(x=x, shape=[0, 0, HEADS, WIDTH // HEADS], inplace=True)
        return self.layers.transpose(x, perm=[0, 2, 1, 3])

    def attention(self, query, memory, bias, name, cache=None):
        """cache: {"k", "v"} of the steps so far, replaced here by what includes this step."""
        layers = self.layers
        memory = query if memory is None else memory
        q = self.heads(self.fc(query, WIDTH, name + "_q"))
        k, v = self.heads(self.fc(memory, WIDTH, name + "_k")), self.heads(self.fc(memory, WIDTH, name + "_v"))
        if cache is not None:
            k = cache["k"] = layers.concat([cache["k"], k], axis=2)
            v = cache["v"] = layers.concat([cache["v"], v], axis=2)
        product = layers.matmul(x=q, y=k, transpose_y=True, alpha=(WIDTH // HEADS) ** -0.5)
        weights = layers.softmax(product if bias is None else product + bias)
        out = layers.transpose(layers.matmul(weights, v), perm=[0, 2, 1, 3])
        return self.fc(layers.reshape(x=out, shape=[0, 0, WIDTH], inplace=True), WIDTH, name + "_out")

    def feed_forward(self, x, name):
        return self.fc(self.fc(x, INNER, name + "_1", act="relu", bias=True), WIDTH, name + "_2", bias=True)

    def encoder(self, word, pos, bias):
        x = self.embed(word, pos, "src")
        for i in range(LAYERS):
            name = "enc_%d" % i
            x = x + self.attention(self.norm(x, name + "_ln1"), None, bias, name + "_self")
            x = x + self.feed_forward(self.norm(x, name + "_ln2"), name + "_ffn")
        return self.norm(x, "enc_ln")

    def decoder(self, word, pos, self_bias, cross_bias, encoded, caches=None):
        x = self.embed(word, pos, "trg")
        for i in range(LAYERS):
            name, cache = "dec_%d" % i, caches[i] if caches else None
            x = x + self.attention(self.norm(x, name + "_ln1"), None, self_bias, name + "_self", cache)
            x = x + self.attention(self.norm(x, name + "_ln2"), encoded, cross_bias, name + "_cross")
            x = x + self.feed_forward(self.norm(x, name + "_ln3"), name + "_ffn")
        x = self.layers.reshape(self.norm(x, "dec_ln"), shape=[-1, WIDTH])
        return self.fc(x, WORDS, "predict", dims=1)

    def encoder_inputs(self):
        return (
            self.fluid.data(name="src_word", shape=[None, SRC, 1], dtype="int64"),
            self.fluid.data(name="src_pos", shape=[None, SRC, 1], dtype="int64"),
            self.fluid.data(name="src_slf_attn_bias", shape=[None, HEADS, SRC, SRC], dtype="float32"),
        )


def training(fluid):
    layers, net = fluid.layers, Transformer(fluid)
    encoded = net.encoder(*net.encoder_inputs())
    word = fluid.data(name="trg_word", shape=[None, TRG, 1], dtype="int64")
    pos = fluid.data(name="trg_pos", shape=[None, TRG, 1], dtype="int64")
    self_bias = fluid.data(name="trg_slf_attn_bias", shape=[None, HEADS, TRG, TRG], dtype="float32")
    cross_bias = fluid.data(name="trg_src_attn_bias", shape=[None, HEADS, TRG, SRC], dtype="float32")
    label = fluid.data(name="lbl_word", shape=[None, 1], dtype="int64")
    weights = fluid.data(name="lbl_weight", shape=[None, 1], dtype="float32")
    logits = net.decoder(word, pos, self_bias, cross_bias, encoded)
    smooth = layers.label_smooth(label=layers.one_hot(input=label, depth=WORDS), epsilon=0.1)
    smooth.stop_gradient = True
    cost = layers.softmax_with_cross_entropy(logits=logits, label=smooth, soft_label=True)
    sum_cost = layers.reduce_sum(cost * weights)
    token_num = layers.reduce_sum(weights)
    token_num.stop_gradient = True
    return sum_cost / token_num, sum_cost, layers.softmax(logits)


def decoding(fluid):
    """Every hypothesis is a row; beam_search's parents tell which rows' caches go on."""
    layers, net = fluid.layers, Transformer(fluid)
    encoded = net.encoder(*net.encoder_inputs())
    start = fluid.data(name="trg_word", shape=[None, 1], dtype="int64", lod_level=2)
    init_scores = fluid.data(name="init_score", shape=[None, 1], dtype="float32", lod_level=2)
    init_rows = fluid.data(name="init_idx", shape=[None], dtype="int32")
    cross_bias = fluid.data(name="trg_src_attn_bias", shape=[None, HEADS, 1, SRC], dtype="float32")
    max_len = layers.fill_constant(shape=[1], dtype="int64", value=MAX_OUT)
    step = layers.fill_constant(shape=[1], dtype="int64", value=0)
    cond = layers.less_than(x=step, y=max_len)
    loop = layers.While(cond)
    ids = layers.array_write(start, step)
    scores = layers.array_write(init_scores, step)
    caches = [
        {
            what: layers.fill_constant_batch_size_like(
                input=encoded, shape=[-1, HEADS, 0, WIDTH // HEADS], dtype="float32", value=0
            )
            for what in ("k", "v")
        }
        for _ in range(LAYERS)
    ]
    parents = layers.array_write(init_rows, step)
    with loop.block():
        pre_ids, pre_scores = layers.array_read(array=ids, i=step), layers.array_read(array=scores, i=step)
        rows = layers.array_read(array=parents, i=step)
        pre_ids_flat = layers.reshape(pre_ids, shape=[-1, 1, 1])
        kept_bias, kept_encoded = layers.gather(cross_bias, rows), layers.gather(encoded, rows)
        now = [{k: layers.gather(v, rows) for k, v in sorted(cache.items())} for cache in caches]
        pos = layers.elementwise_mul(
            x=layers.fill_constant_batch_size_like(input=kept_bias, value=1, shape=[-1, 1, 1], dtype="int64"),
            y=step,
            axis=0,
        )
        logits = net.decoder(pre_ids_flat, pos, None, kept_bias, kept_encoded, now)
        top_scores, top_ids = layers.topk(input=layers.softmax(logits), k=BEAM)
        total = layers.elementwise_add(x=layers.log(top_scores), y=layers.reshape(pre_scores, shape=[-1]), axis=0)
        total = layers.lod_reset(total, pre_ids)
        chosen, chosen_scores, parent = layers.beam_search(
            pre_ids=pre_ids,
            pre_scores=pre_scores,
            ids=top_ids,
            scores=total,
            beam_size=BEAM,
            end_id=END,
            return_parent_idx=True,
        )
        layers.increment(x=step, value=1.0, in_place=True)
        layers.array_write(chosen, i=step, array=ids)
        layers.array_write(chosen_scores, i=step, array=scores)
        layers.array_write(parent, i=step, array=parents)
        layers.assign(kept_encoded, encoded)
        layers.assign(kept_bias, cross_bias)
        for cache, last in zip(caches, now):
            for what in ("k", "v"):
                layers.assign(last[what], cache[what])
        length_cond = layers.less_than(x=step, y=max_len)
        finish_cond = layers.logical_not(layers.is_empty(x=chosen))
        layers.logical_and(x=length_cond, y=finish_cond, out=cond)
    return layers.beam_search_decode(ids, scores, beam_size=BEAM, end_id=END)


def build(fluid):
    avg_cost, sum_cost, prediction = training(fluid)
    feeds = repeat(data, 5)
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()), fluid.unique_name.guard():
        found = decoding(fluid)
    feed = {k: feeds[0][k] for k in ("src_word", "src_pos", "src_slf_attn_bias")}
    ones = [[1] * BATCH, [1] * BATCH]
    feed["trg_src_attn_bias"] = feeds[0]["trg_src_attn_bias"][:, :, :1]
    feed["trg_word"] = np.full((BATCH, 1), START, "int64"), ones
    feed["init_score"] = np.zeros((BATCH, 1), "float32"), ones
    feed["init_idx"] = np.arange(BATCH, dtype="int32")

    def train():
        schedule = fluid.layers.learning_rate_scheduler.noam_decay(WIDTH, 50)
        fluid.optimizer.Adam(learning_rate=schedule, beta1=0.9, beta2=0.997, epsilon=1e-9).minimize(avg_cost)

    return Model(avg_cost, feeds, [sum_cost, prediction], train, test=(program, feed, list(found)))
