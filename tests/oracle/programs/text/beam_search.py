"""Translation by beam search: a While loop over arrays with LoD beams, as the book's decoder is written."""

import numpy as np

from program_model import Model, lengths, ragged_ids, repeat

WORDS, HIDDEN, BEAM, MAX, END = 12, 5, 3, 6, 1


def data(rng):
    one = [[1, 1, 1], [1, 1, 1]]
    return {
        "src": ragged_ids(rng, lengths(rng, 3, 2, 6), WORDS),
        "init_ids": (np.zeros((3, 1), "int64"), one),
        "init_scores": (np.zeros((3, 1), "float32"), one),
    }


def build(fluid):
    layers = fluid.layers
    src = layers.data("src", [1], dtype="int64", lod_level=1)
    emb = layers.embedding(
        src, [WORDS, 6], param_attr=fluid.ParamAttr(name="vemb", initializer=fluid.initializer.Normal(scale=1.0))
    )
    context = layers.sequence_last_step(layers.dynamic_gru(layers.fc(emb, HIDDEN * 3), HIDDEN))
    init_ids = layers.data("init_ids", [1], dtype="int64", lod_level=2)
    init_scores = layers.data("init_scores", [1], dtype="float32", lod_level=2)
    array_len = layers.fill_constant([1], "int64", MAX)
    counter = layers.zeros([1], "int64", force_cpu=True)
    state_array, ids_array, scores_array = (
        layers.create_array("float32"),
        layers.create_array("int64"),
        layers.create_array("float32"),
    )
    layers.array_write(context, array=state_array, i=counter)
    layers.array_write(init_ids, array=ids_array, i=counter)
    layers.array_write(init_scores, array=scores_array, i=counter)
    cond = layers.less_than(x=counter, y=array_len)
    loop = layers.While(cond=cond)
    with loop.block():
        pre_ids = layers.array_read(array=ids_array, i=counter)
        pre_state = layers.array_read(array=state_array, i=counter)
        pre_score = layers.array_read(array=scores_array, i=counter)
        expanded = layers.sequence_expand(pre_state, pre_score)
        word = layers.embedding(pre_ids, [WORDS, 6], param_attr=fluid.ParamAttr(name="vemb"))
        state = layers.fc(
            [expanded, word], HIDDEN, act="tanh", param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(scale=0.8))
        )
        with_lod = layers.lod_reset(x=state, y=pre_score)
        score = layers.fc(
            with_lod, WORDS, act="softmax", param_attr=fluid.ParamAttr(initializer=fluid.initializer.Normal(scale=1.5))
        )
        top_scores, top_ids = layers.topk(score, k=BEAM)
        accumulated = layers.elementwise_add(layers.log(top_scores), layers.reshape(pre_score, shape=[-1]), axis=0)
        ids, scores = layers.beam_search(pre_ids, pre_score, top_ids, accumulated, BEAM, end_id=END, level=0)
        layers.increment(x=counter, value=1, in_place=True)
        layers.array_write(state, array=state_array, i=counter)
        layers.array_write(ids, array=ids_array, i=counter)
        layers.array_write(scores, array=scores_array, i=counter)
        length_cond = layers.less_than(x=counter, y=array_len)
        finish_cond = layers.logical_not(layers.is_empty(x=ids))
        layers.logical_and(x=length_cond, y=finish_cond, out=cond)
    best_ids, best_scores = layers.beam_search_decode(ids_array, scores_array, beam_size=BEAM, end_id=END)
    return Model(None, repeat(data, 2), [best_ids, best_scores])
