"""BERT pretraining: masked words through the tied embedding, next sentence from the first position (Devlin et al., 2018)."""

import numpy as np

from program_model import Model, repeat

BATCH, TIME, WORDS, WIDTH, HEADS, INNER, LAYERS, MASKED = 3, 8, 40, 8, 2, 16, 2, 2


def data(rng):
    length = rng.randint(4, TIME + 1, (BATCH,))
    inside = np.arange(TIME)[None, :] < length[:, None]
    where = np.concatenate([rng.permutation(int(n))[:MASKED] + i * TIME for i, n in enumerate(length)])
    return {
        "src_ids": (rng.randint(1, WORDS, (BATCH, TIME)) * inside)[:, :, None].astype("int64"),
        "pos_ids": np.tile(np.arange(TIME), (BATCH, 1))[:, :, None].astype("int64"),
        "sent_ids": rng.randint(0, 2, (BATCH, TIME, 1)).astype("int64"),
        "input_mask": inside[:, :, None].astype("float32"),
        "mask_label": rng.randint(1, WORDS, (BATCH * MASKED, 1)).astype("int64"),
        "mask_pos": where.reshape(-1, 1).astype("int64"),
        "labels": rng.randint(0, 2, (BATCH, 1)).astype("int64"),
    }


class BertModel(object):
    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers

    def attr(self, name):
        return self.fluid.ParamAttr(name=name, initializer=self.fluid.initializer.TruncatedNormal(scale=0.02))

    def fc(self, x, size, name, act=None):
        return self.layers.fc(
            input=x,
            size=size,
            num_flatten_dims=len(x.shape) - 1,
            act=act,
            param_attr=self.attr(name + ".w_0"),
            bias_attr=name + ".b_0",
        )

    def process(self, prev_out, out, commands, name):
        """d: dropout, a: residual, n: layer normalisation."""
        for command in commands:
            if command == "a" and prev_out is not None:
                out = out + prev_out
            elif command == "d":
                out = self.layers.dropout(
                    out, dropout_prob=0.0, dropout_implementation="upscale_in_train", is_test=False
                )
            elif command == "n":
                out = self.layers.layer_norm(
                    out,
                    begin_norm_axis=len(out.shape) - 1,
                    param_attr=self.fluid.ParamAttr(
                        name=name + "_layer_norm_scale", initializer=self.fluid.initializer.Constant(1.0)
                    ),
                    bias_attr=self.fluid.ParamAttr(
                        name=name + "_layer_norm_bias", initializer=self.fluid.initializer.Constant(0.0)
                    ),
                )
        return out

    def attention(self, x, bias, name):
        layers = self.layers

        def heads(what):
            projected = layers.reshape(
                self.fc(x, WIDTH, name + "_" + what), [0, 0, HEADS, WIDTH // HEADS], inplace=True
            )
            return layers.transpose(projected, perm=[0, 2, 1, 3])

        q, k, v = layers.scale(heads("query_fc"), scale=(WIDTH // HEADS) ** -0.5), heads("key_fc"), heads("value_fc")
        product = layers.matmul(x=q, y=k, transpose_y=True) + bias
        weights = layers.dropout(
            layers.softmax(product), dropout_prob=0.0, dropout_implementation="upscale_in_train", is_test=False
        )
        out = layers.transpose(layers.matmul(weights, v), perm=[0, 2, 1, 3])
        return self.fc(layers.reshape(out, shape=[0, 0, WIDTH], inplace=True), WIDTH, name + "_output_fc")

    def encode(self, src_ids, position_ids, sentence_ids, input_mask):
        layers = self.layers

        def looked_up(ids, size, name):
            return layers.embedding(input=ids, size=[size, WIDTH], dtype="float32", param_attr=self.attr(name))

        out = looked_up(src_ids, WORDS, "word_embedding")
        out = out + looked_up(position_ids, TIME, "pos_embedding")
        out = out + looked_up(sentence_ids, 2, "sent_embedding")
        out = self.process(None, out, "nd", "pre_encoder")
        mask = layers.matmul(x=input_mask, y=input_mask, transpose_y=True)
        mask = layers.scale(x=mask, scale=10000.0, bias=-1.0, bias_after_scale=False)
        bias = layers.stack(x=[mask] * HEADS, axis=1)
        bias.stop_gradient = True
        for i in range(LAYERS):
            name = "encoder_layer_%d" % i
            attended = self.process(out, self.attention(out, bias, name + "_multi_head_att"), "dan", name + "_post_att")
            inner = self.fc(attended, INNER, name + "_ffn_fc_0", act="gelu")
            out = self.process(attended, self.fc(inner, WIDTH, name + "_ffn_fc_1"), "dan", name + "_post_ffn")
        return out

    def pretraining(self, encoded, mask_label, mask_pos, labels):
        layers = self.layers
        first = layers.slice(input=encoded, axes=[1], starts=[0], ends=[1])
        first = layers.reshape(first, shape=[-1, WIDTH])
        pooled = self.fc(first, WIDTH, "pooled_fc", act="tanh")
        flat = layers.reshape(x=encoded, shape=[-1, WIDTH])
        picked = layers.gather(input=flat, index=layers.cast(mask_pos, dtype="int32"))
        picked = self.fc(picked, WIDTH, "mask_lm_trans_fc", act="gelu")
        picked = self.process(None, picked, "n", "mask_lm_trans")
        table = self.fluid.default_main_program().global_block().var("word_embedding")
        words = layers.matmul(x=picked, y=table, transpose_y=True)
        words = words + layers.create_parameter(
            shape=[WORDS],
            dtype="float32",
            attr=self.fluid.ParamAttr(
                name="mask_lm_out_fc.b_0", initializer=self.fluid.initializer.Constant(value=0.0)
            ),
            is_bias=True,
        )
        mask_lm_loss = layers.mean(layers.softmax_with_cross_entropy(logits=words, label=mask_label))
        sentence = self.fc(pooled, 2, "next_sent_fc")
        cost, prob = layers.softmax_with_cross_entropy(logits=sentence, label=labels, return_softmax=True)
        accuracy = layers.accuracy(input=prob, label=labels)
        return mask_lm_loss + layers.mean(cost), mask_lm_loss, accuracy


def build(fluid):
    layers = fluid.layers

    def data_layer(name, shape, dtype="int64"):
        return layers.data(name=name, shape=shape, dtype=dtype)

    src_ids, pos_ids, sent_ids = (data_layer(n, [TIME, 1]) for n in ("src_ids", "pos_ids", "sent_ids"))
    input_mask = data_layer("input_mask", [TIME, 1], "float32")
    mask_label, mask_pos, labels = (data_layer(n, [1]) for n in ("mask_label", "mask_pos", "labels"))
    bert = BertModel(fluid)
    encoded = bert.encode(src_ids, pos_ids, sent_ids, input_mask)
    loss, mask_lm_loss, accuracy = bert.pretraining(encoded, mask_label, mask_pos, labels)

    def train():
        """Adam with warm-up and linear decay; weight decay beside the gradient, not through it."""
        program = fluid.default_main_program()
        schedule = layers.linear_lr_warmup(
            layers.polynomial_decay(learning_rate=0.01, decay_steps=10, end_learning_rate=0.0, power=1.0, cycle=False),
            warmup_steps=2,
            start_lr=0.0,
            end_lr=0.01,
        )
        optimizer = fluid.optimizer.Adam(learning_rate=schedule, grad_clip=fluid.clip.GradientClipByGlobalNorm(1.0))
        kept = {p.name: p * 1.0 for p in program.global_block().all_parameters()}
        for value in kept.values():
            value.stop_gradient = True
        _, pairs = optimizer.minimize(loss)
        for param, grad in pairs:
            if "layer_norm" in param.name or param.name.endswith(("_bias", ".b_0")):
                continue
            with program._optimized_guard([param, grad]), fluid.framework.name_scope("weight_decay"):
                layers.assign(output=param, input=param - kept[param.name] * 0.01 * schedule)

    return Model(loss, repeat(data, 5), [mask_lm_loss, accuracy], train)
