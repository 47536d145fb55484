"""SSR: pooled and last-GRU encodings of a user's history, ranked against wrong items by hinge (sequence semantic retrieval)."""

from program_model import Model, lengths, ragged_ids, repeat

WORDS, WIDTH, HIDDEN = 30, 6, 5


def data(rng):
    return {
        "user": ragged_ids(rng, lengths(rng, 4, 1, 6), WORDS),
        "pos_item": ragged_ids(rng, [1] * 4, WORDS),
        "neg_item": ragged_ids(rng, [1] * 4, WORDS),
    }


class BowEncoder(object):
    def __init__(self, fluid):
        self.layers = fluid.layers

    def forward(self, emb):
        return self.layers.sequence_pool(input=emb, pool_type="sum")


class GrnnEncoder(object):
    def __init__(self, fluid, param_name, hidden_size=HIDDEN):
        self.layers, self.param_name, self.hidden_size = fluid.layers, param_name, hidden_size

    def forward(self, emb):
        fc0 = self.layers.fc(
            input=emb, size=self.hidden_size * 3, param_attr=self.param_name + "_fc.w", bias_attr=False
        )
        gru_h = self.layers.dynamic_gru(
            input=fc0,
            size=self.hidden_size,
            is_reverse=False,
            param_attr=self.param_name + ".param",
            bias_attr=self.param_name + ".bias",
        )
        return self.layers.sequence_pool(input=gru_h, pool_type="max")


class PairwiseHingeLoss(object):
    def __init__(self, fluid, margin=0.8):
        self.layers, self.margin = fluid.layers, margin

    def forward(self, pos, neg):
        layers = self.layers
        margin = layers.fill_constant_batch_size_like(input=pos, shape=[-1, 1], dtype="float32", value=self.margin)
        loss_part = layers.elementwise_add(layers.elementwise_sub(margin, pos), neg)
        zero = layers.fill_constant_batch_size_like(input=loss_part, shape=[-1, 1], value=0.0, dtype="float32")
        return layers.elementwise_max(zero, loss_part)


def build(fluid):
    layers = fluid.layers
    user, pos_item, neg_item = (
        layers.data(name=name, shape=[1], dtype="int64", lod_level=1) for name in ("user", "pos_item", "neg_item")
    )
    embs = [
        layers.embedding(input=x, size=[WORDS, WIDTH], param_attr="emb.item" if i else "emb.user")
        for i, x in enumerate((user, pos_item, neg_item))
    ]
    encoders = [GrnnEncoder(fluid, "user_grnn"), BowEncoder(fluid)]
    user_enc = layers.concat([layers.tanh(e.forward(embs[0])) for e in encoders], axis=1)
    user_hid = layers.fc(input=user_enc, size=WIDTH, param_attr="user.w", bias_attr="user.b")
    pos_hid = layers.fc(input=BowEncoder(fluid).forward(embs[1]), size=WIDTH, param_attr="item.w", bias_attr="item.b")
    neg_hid = layers.fc(input=BowEncoder(fluid).forward(embs[2]), size=WIDTH, param_attr="item.w", bias_attr="item.b")
    cos_pos, cos_neg = layers.cos_sim(user_hid, pos_hid), layers.cos_sim(user_hid, neg_hid)
    avg_cost = layers.mean(PairwiseHingeLoss(fluid).forward(cos_pos, cos_neg))
    correct = layers.reduce_sum(layers.cast(layers.less_than(cos_neg, cos_pos), dtype="float32"))
    return Model(
        avg_cost,
        repeat(data, 5),
        [correct, cos_pos, cos_neg],
        lambda: fluid.optimizer.Adam(learning_rate=0.01).minimize(avg_cost),
    )
