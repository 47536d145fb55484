"""TagSpace: a tag and a text close to each other, a wrong tag far away, by hinge (Weston et al., 2014)."""

from program_model import Model, lengths, ragged_ids, repeat

WORDS, TAGS, WIDTH, HIDDEN, WINDOW, NEGATIVES = 40, 12, 5, 6, 3, 3


def data(rng):
    lens = lengths(rng, 5, 2, 7)
    return {
        "text": ragged_ids(rng, lens, WORDS),
        "pos_tag": ragged_ids(rng, [1] * 5, TAGS),
        "neg_tag": ragged_ids(rng, [NEGATIVES] * 5, TAGS),
    }


def build(fluid):
    layers, nets = fluid.layers, fluid.nets
    text = layers.data(name="text", shape=[1], lod_level=1, dtype="int64")
    pos_tag = layers.data(name="pos_tag", shape=[1], lod_level=1, dtype="int64")
    neg_tag = layers.data(name="neg_tag", shape=[1], lod_level=1, dtype="int64")
    text_emb = layers.embedding(input=text, size=[WORDS, WIDTH], param_attr="text_emb")
    pos_tag_emb = layers.embedding(input=pos_tag, size=[TAGS, HIDDEN], param_attr="tag_emb")
    neg_tag_emb = layers.embedding(input=neg_tag, size=[TAGS, HIDDEN], param_attr="tag_emb")
    conv_1d = nets.sequence_conv_pool(
        input=text_emb, num_filters=HIDDEN, filter_size=WINDOW, act="tanh", pool_type="max", param_attr="cnn"
    )
    text_hid = layers.fc(input=conv_1d, size=HIDDEN, param_attr="text_hid")
    cos_pos = layers.cos_sim(pos_tag_emb, text_hid)
    mul_text_hid = layers.sequence_expand_as(x=text_hid, y=neg_tag_emb)
    cos_neg_all = layers.sequence_reshape(input=layers.cos_sim(neg_tag_emb, mul_text_hid), new_dim=NEGATIVES)
    cos_neg = layers.reduce_max(cos_neg_all, dim=1, keep_dim=True)
    zero = layers.fill_constant_batch_size_like(input=cos_neg, dtype="float32", shape=[-1, 1], value=0.0)
    margin = layers.fill_constant_batch_size_like(input=cos_neg, dtype="float32", shape=[-1, 1], value=0.1)
    loss_part = layers.elementwise_add(layers.elementwise_sub(margin, cos_pos), cos_neg)
    loss = layers.elementwise_max(zero, loss_part)
    avg_cost = layers.mean(loss)
    less = layers.cast(layers.less_than(cos_neg, cos_pos), dtype="float32")
    correct = layers.reduce_sum(layers.elementwise_mul(layers.ones_like(less), less))
    return Model(
        avg_cost,
        repeat(data, 5),
        [correct, cos_pos, cos_neg],
        lambda: fluid.optimizer.Adagrad(learning_rate=0.05).minimize(avg_cost),
    )
