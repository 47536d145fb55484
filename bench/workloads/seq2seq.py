"""Translation: GRU encoder both ways, a decoder that attends to it in a DynamicRNN; 16 unpadded pairs, Adam.

Vocabulary 5,000, words and states of 256.
"""

import described
import numpy as np

RNG = np.random.RandomState(0)
WORDS, WIDTH, HIDDEN, BATCH = 5000, 256, 256, 16
SOURCES, TARGETS = RNG.randint(8, 30, BATCH), RNG.randint(8, 30, BATCH)


def words(lengths):
    return described.Sequences(RNG.randint(0, WORDS, (int(lengths.sum()), 1)).astype("int64"), lengths)


FEED = {"source": words(SOURCES), "target": words(TARGETS), "next": words(TARGETS)}
OPTIMIZER = described.Optimizer("adam", 0.001)
TOLERANCE = described.ADAM_TOLERANCE
LEFT_OUT = {"paddle3": "it has no GRU of Fluid's equations; the decoder would be a loop of Python calls"}


def fluid_model(fluid):
    from described import fluid_side

    layers = fluid.layers
    source, target, following = (fluid_side.variable(fluid, k, FEED[k]) for k in ("source", "target", "next"))

    def linear(x, size, act=None):
        return layers.fc(x, size, act=act, bias_attr=False)

    word = layers.embedding(source, [WORDS, WIDTH])
    sides = [layers.dynamic_gru(linear(word, 3 * HIDDEN), HIDDEN, is_reverse=back) for back in (False, True)]
    encoded = layers.concat(sides, axis=1)
    boot = linear(layers.sequence_first_step(sides[1]), HIDDEN, "tanh")
    projected = linear(encoded, HIDDEN)
    rnn = layers.DynamicRNN()
    embedded = layers.embedding(target, [WORDS, WIDTH])
    with rnn.block():
        now = rnn.step_input(embedded)
        kept, kept_projected = rnn.static_input(encoded), rnn.static_input(projected)
        state = rnn.memory(init=boot, need_reorder=True)
        expanded = layers.sequence_expand(linear(state, HIDDEN), kept_projected)
        weights = linear(layers.tanh(layers.elementwise_add(kept_projected, expanded)), 1)
        weights = layers.reshape(layers.sequence_softmax(weights), [-1])
        context = layers.sequence_pool(layers.elementwise_mul(kept, weights, axis=0), "sum")
        hidden, _, _ = layers.gru_unit(linear([now, context], 3 * HIDDEN), state, 3 * HIDDEN)
        rnn.update_memory(state, hidden)
        rnn.output(layers.fc(hidden, WORDS, act="softmax"))
    loss = layers.mean(layers.cross_entropy(rnn(), following))
    fluid_side.minimize(fluid, OPTIMIZER, loss)
    return {name: fluid_side.value(fluid, value) for name, value in FEED.items()}, loss


def feeds():
    """(padded source side, padded target side) for frameworks without LoD."""
    return described.dense({"source": FEED["source"]}), described.dense({k: FEED[k] for k in ("target", "next")})


def encode(n, feed):
    """(encoded, boot, projected): the same words in torch's and JAX's vocabulary."""
    word = n.embed(feed["source"], WORDS, WIDTH)
    sides = [n.gru(n.fc(word, 3 * HIDDEN, dims=2, bias=False), HIDDEN, reverse=back) for back in (False, True)]
    encoded = n.concat(sides, -1)
    return encoded, n.fc(sides[1][:, 0], HIDDEN, "tanh", bias=False), n.fc(encoded, HIDDEN, dims=2, bias=False)


def torch_step(parameters, compiled=False):
    import torch
    from described import torch_side
    from torch import nn
    from torch.nn import functional as F

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList()

        def forward(self, source, target, values=None):
            n = torch_side.Layers(self.parts, source, values)
            encoded, state, projected = encode(n, source)
            hidden_from = ~n.mask(encoded)
            embedded = n.embed(target["target"], WORDS, WIDTH)
            of_state, score, word, context, weight, bias, out, out_bias = n.weights(8)
            both, candidate = weight.reshape(-1)[: 2 * HIDDEN**2], weight.reshape(-1)[2 * HIDDEN**2 :]
            both, candidate = both.view(HIDDEN, -1), candidate.view(HIDDEN, -1)
            gates = embedded @ word + bias
            found = []
            for t in range(gates.shape[1]):
                weights = torch.tanh(projected + (state @ of_state)[:, None]) @ score
                weights = F.softmax(weights.masked_fill(hidden_from, -torch.inf), 1)
                now = torch.addmm(gates[:, t], (encoded * weights).sum(1), context)
                u, r = torch.sigmoid(torch.addmm(now[:, : 2 * HIDDEN], state, both)).chunk(2, 1)
                new = torch.tanh(torch.addmm(now[:, 2 * HIDDEN :], r * state, candidate))
                state = torch.lerp(state, new, u)
                found.append(state)
            n.lengths = target[described.LENGTHS]
            mask = n.mask(gates)[..., 0]
            logits = torch.stack(found, 1)[mask] @ out + out_bias
            return F.cross_entropy(logits, target["next"][..., 0][mask])

    source, target = (torch_side.tensors(feed) for feed in feeds())
    net = Net()
    with torch.no_grad():
        net(source, target, iter(parameters.values()))
    run = torch.compile(net) if compiled else net
    optimizer = torch_side.make_optimizer(OPTIMIZER, net.parameters())
    return torch_side.training_step(lambda: run(source, target), optimizer)


def jax_step(parameters):
    import jax
    import jax.numpy as jnp
    from described import jax_side
    from jax import lax

    def loss(parameters, feed):
        source, target = feed
        n = jax_side.Layers(parameters, source)
        encoded, boot, projected = encode(n, source)
        inside = n.mask(encoded)
        embedded = n.embed(target["target"], WORDS, WIDTH)
        of_state, score, word, context, weight, bias, out, out_bias = (n.take() for _ in range(8))
        both, candidate = jnp.split(weight.reshape(-1), [2 * HIDDEN**2])
        both, candidate = both.reshape(HIDDEN, -1), candidate.reshape(HIDDEN, -1)

        def step(state, gates):
            weights = jnp.tanh(projected + (state @ of_state)[:, None]) @ score
            weights = jax.nn.softmax(jnp.where(inside, weights, -jnp.inf), 1)
            now = gates + (encoded * weights).sum(1) @ context
            u, r = jnp.split(jax.nn.sigmoid(now[:, : 2 * HIDDEN] + state @ both), 2, 1)
            new = jnp.tanh(now[:, 2 * HIDDEN :] + (r * state) @ candidate)
            state = state + u * (new - state)
            return state, state

        gates = (embedded @ word + bias).swapaxes(0, 1)
        states = lax.scan(step, boot, gates)[1].swapaxes(0, 1)
        n.lengths = target[described.LENGTHS]
        logits = jax.nn.log_softmax(states @ out + out_bias)
        picked = jnp.take_along_axis(logits, target["next"], 2)
        return -jnp.where(n.mask(logits), picked, 0.0).sum() / n.lengths.sum(), n.statistics

    narrow = tuple(jax_side.narrow(feed) for feed in feeds())
    return jax_side.training_step(loss, narrow, OPTIMIZER, list(parameters.values()))
