"""Which gradients carry a LoD, and whose, as recorded from 1.8.5 (tests/golden/gradient_lods.py)."""

import importlib.util
import json
import os

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid import layers
from millstream.ops._opdef import REGISTRY

GOLDEN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden")
SPEC = importlib.util.spec_from_file_location("gradient_lods", os.path.join(GOLDEN, "gradient_lods.py"))
LODS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(LODS)
with open(os.path.join(GOLDEN, "gradient_lods.json")) as source:
    RECORDED = json.load(source)
# With Length the Emission is padded; one that has a LoD as well keeps it here.
KEEPS_MORE = {"linear_chain_crf"}


@pytest.mark.parametrize("path", RECORDED)
def test_as_recorded(path):
    document, arrays = LODS.check.load_op(os.path.join(GOLDEN, path))
    arrays = dict(arrays)
    cases = {case["id"]: case for case in document["cases"]}
    wrong = []
    for name, want in RECORDED[path].items():
        feeds, weights = LODS.check.case_inputs(cases[name], arrays)
        got = LODS.gradient_lods(fluid, cases[name], feeds, weights)
        if got != want and cases[name]["ops"][0]["type"] not in KEEPS_MORE:
            wrong.append(f"{name}: {got}, expected {want}")
    assert not wrong, "\n".join(wrong)


def test_rules_name_slots():
    for definition in REGISTRY.declared():
        for part in (definition.grad_lod or "").split(","):
            slot = part.partition("=")[0].strip()
            assert not slot or slot in definition.in_slots, f"{definition.name}: grad_lod names {slot!r}"
            mine = REGISTRY.forward_type(definition.name) is None
            assert not slot or mine, f"{definition.name}: a gradient's LoDs are said by its forward operator"


def test_a_gradient_of_words_is_a_sequence_itself():
    """Adversarial training: the gradient of the embedded words, added to them and pooled by sentence."""
    ids = layers.data("ids", [1], dtype="int64", lod_level=1)
    words = layers.embedding(ids, [7, 3])
    words.stop_gradient = False
    loss = layers.mean(layers.sequence_pool(layers.tanh(words), "sum"))
    (grad,) = fluid.gradients([loss], [words])
    moved = layers.sequence_pool(layers.elementwise_add(layers.scale(grad, 5.0), words), "sum")
    executor = fluid.Executor()
    executor.run(fluid.default_startup_program())
    tensor = fluid.create_lod_tensor(np.arange(5).reshape(-1, 1), [[2, 3]], fluid.CPUPlace())
    got, pooled = executor.run(feed={"ids": tensor}, fetch_list=[grad, moved], return_numpy=False)
    assert got.recursive_sequence_lengths() == [[2, 3]]
    assert np.array(pooled).shape == (2, 3)


@pytest.mark.parametrize("passes", ["with", "without"])
def test_gradients_behind_fused_operators_are_sequences(passes):
    """Dense layers, losses and their means give the LoDs that their parts give; so the words' gradient may be pooled."""
    words, label, value = (
        fluid.data(name, [None, width], dtype, lod_level=1)
        for name, width, dtype in (("words", 3, "float32"), ("label", 1, "int64"), ("value", 4, "float32"))
    )
    words.stop_gradient = False
    hidden = layers.fc(layers.fc(words, 5, act="relu"), 4)
    costs = [layers.cross_entropy(layers.softmax(hidden), label), layers.square_error_cost(hidden, value)]
    grads = fluid.gradients([layers.mean(cost) for cost in costs], [words, hidden, *costs])
    alone = fluid.gradients([layers.mean(layers.square_error_cost(layers.fc(words, 4), value))], [words])[0]
    moved = layers.sequence_pool(layers.elementwise_add(alone, words), "sum")
    executor = fluid.Executor()
    executor.passes = () if passes == "without" else executor.passes
    executor.run(fluid.default_startup_program())
    rng = np.random.RandomState(3)
    rows = {"words": rng.randn(5, 3), "label": rng.randint(0, 4, (5, 1)), "value": rng.randn(5, 4)}
    types = {"words": "float32", "label": "int64", "value": "float32"}
    feed = {n: fluid.create_lod_tensor(v.astype(types[n]), [[2, 3]], fluid.CPUPlace()) for n, v in rows.items()}
    for fetches in ([alone], [moved], grads):
        for got in executor.run(feed=feed, fetch_list=fetches, return_numpy=False):
            lengths = [] if fetches[0] is moved else [[2, 3]]
            assert got.recursive_sequence_lengths() == lengths
