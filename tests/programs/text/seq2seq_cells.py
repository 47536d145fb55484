"""Translation on cells: GRU cells run by layers.rnn, decoded by BeamSearchDecoder in dynamic_decode (Cho et al., 2014)."""

from program_model import Model, repeat

BATCH, TIME, WORDS, WIDTH, BEAM, START, END = 3, 5, 15, 6, 2, 0, 1


def data(rng):
    return {
        "src": rng.randint(2, WORDS, (BATCH, TIME)).astype("int64"),
        "src_length": rng.randint(1, TIME + 1, (BATCH,)).astype("int64"),
        "trg": rng.randint(2, WORDS, (BATCH, TIME)).astype("int64"),
        "trg_length": rng.randint(1, TIME + 1, (BATCH,)).astype("int64"),
        "label": rng.randint(2, WORDS, (BATCH, TIME, 1)).astype("int64"),
    }


class Translator(object):
    def __init__(self, fluid):
        self.fluid, self.layers = fluid, fluid.layers
        uniform = fluid.initializer.UniformInitializer(low=-0.3, high=0.3)
        self.encoder_cell, self.decoder_cell = (
            fluid.layers.GRUCell(
                hidden_size=WIDTH,
                param_attr=fluid.ParamAttr(initializer=uniform),
                name=name,
            )
            for name in ("encoder_cell", "decoder_cell")
        )

    def embed(self, ids, name):
        return self.fluid.embedding(
            input=ids, size=[WORDS, WIDTH], dtype="float32", is_sparse=False, param_attr=self.fluid.ParamAttr(name=name)
        )

    def project(self, hidden):
        return self.layers.fc(
            hidden,
            size=WORDS,
            num_flatten_dims=len(hidden.shape) - 1,
            param_attr=self.fluid.ParamAttr(name="output_w"),
            bias_attr=False,
        )

    def encode(self):
        src = self.fluid.data(name="src", shape=[None, TIME], dtype="int64")
        length = self.fluid.data(name="src_length", shape=[None], dtype="int64")
        return self.layers.rnn(self.encoder_cell, self.embed(src, "source_embedding"), sequence_length=length)


def training(fluid):
    layers, net = fluid.layers, Translator(fluid)
    _, final = net.encode()
    trg = fluid.data(name="trg", shape=[None, TIME], dtype="int64")
    length = fluid.data(name="trg_length", shape=[None], dtype="int64")
    label = fluid.data(name="label", shape=[None, TIME, 1], dtype="int64")
    out, _ = layers.rnn(net.decoder_cell, net.embed(trg, "target_embedding"), initial_states=final, sequence_length=length)
    cost = layers.softmax_with_cross_entropy(logits=net.project(out), label=label)
    mask = layers.sequence_mask(length, maxlen=TIME, dtype="float32")
    loss = layers.reduce_mean(layers.elementwise_mul(layers.squeeze(cost, [2]), mask), dim=[0])
    return layers.reduce_sum(loss), out


def decoding(fluid):
    layers, net = fluid.layers, Translator(fluid)
    _, final = net.encode()
    decoder = layers.BeamSearchDecoder(
        net.decoder_cell,
        start_token=START,
        end_token=END,
        beam_size=BEAM,
        embedding_fn=lambda ids: net.embed(ids, "target_embedding"),
        output_fn=net.project,
    )
    outputs, _ = layers.dynamic_decode(decoder, inits=final, max_step_num=6)
    return outputs


def build(fluid):
    loss, out = training(fluid)
    feeds = repeat(data, 5)
    program = fluid.Program()
    with fluid.program_guard(program, fluid.Program()), fluid.unique_name.guard():
        found = decoding(fluid)
    feed = {k: feeds[0][k] for k in ("src", "src_length")}

    def train():
        fluid.optimizer.Adam(learning_rate=0.01, grad_clip=fluid.clip.GradientClipByGlobalNorm(5.0)).minimize(loss)

    return Model(loss, feeds, [out], train, test=(program, feed, [found]))
