"""Losses over many classes that look at a few of them, or at a path of a tree."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from millstream.fluid.initializer import NumpyArrayInitializer
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    check_choice,
    check_variable,
    check_variable_and_dtype,
    refuse,
)
from millstream.fluid.param_attr import ParamAttr
from millstream.ir.types import VarType

__all__ = ["hsigmoid", "nce", "sampled_softmax_with_cross_entropy"]

_SAMPLERS = {"uniform": 0, "log_uniform": 1, "custom_dist": 2}


def _alias_tables(probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias tables (Vose, 1991): draw i uniformly, keep it with probability accept[i], else take alias[i].

    An entry that is always kept has alias -1.
    """
    n = len(probabilities)
    weight = [float(p) * n for p in probabilities]
    small = [(i, w) for i, w in enumerate(weight) if w < 1.0]
    large = [(i, w) for i, w in enumerate(weight) if w > 1.0]
    accept = np.ones(n, "float32")
    alias = np.full(n, -1, "int32")
    while small and large:
        i, w = small.pop(0)
        j, v = large.pop(0)
        accept[i], alias[i] = w, j
        rest = v + w - 1.0
        if rest > 1.0:
            large.append((j, rest))
        elif rest < 1.0:
            small.append((j, rest))
    return accept, alias


def nce(
    input: Any,
    label: Any,
    num_total_classes: int,
    sample_weight: Any = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    num_neg_samples: int | None = None,
    name: str | None = None,
    sampler: str = "uniform",
    custom_dist: Any = None,
    seed: int = 0,
    is_sparse: bool = False,
) -> Any:
    """Noise-contrastive estimation (Gutmann and Hyvärinen, 2010): [batch, 1], the cost of the true classes and of
    `num_neg_samples` (10) drawn ones, divided by their number.

    Args:
        input: [batch, features].
        label: int64 [batch, true classes].
        sample_weight: [batch, 1].
        param_attr, bias_attr: of the weight [classes, features] and the bias [classes, 1]; bias_attr=False: none.
        sampler: "uniform", "log_uniform", or "custom_dist" with the probabilities `custom_dist`.
        is_sparse: the gradient of the weight is SelectedRows.
    """
    layer = "nce"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(label, "label", INDICES, layer)
    check_choice(sampler, "sampler", tuple(_SAMPLERS), layer)
    negatives = 10 if num_neg_samples is None else int(num_neg_samples)
    helper = LayerHelper(layer, input=input, param_attr=param_attr, bias_attr=bias_attr, name=name)
    weight = helper.create_parameter(
        attr=helper.param_attr, shape=[num_total_classes, input.shape[1]], dtype=input.dtype, is_bias=False
    )
    inputs: dict[str, Any] = {"Input": input, "Label": label, "Weight": weight}
    if helper.bias_attr:
        inputs["Bias"] = helper.create_parameter(
            attr=helper.bias_attr, shape=[num_total_classes, 1], dtype=input.dtype, is_bias=True
        )
    if sample_weight is not None:
        check_variable(sample_weight, "sample_weight", layer)
        inputs["SampleWeight"] = sample_weight
    if sampler == "custom_dist":
        inputs |= _custom_distribution(helper, custom_dist, num_total_classes)
    cost: Any = helper.create_variable_for_type_inference(input.dtype)
    logits = helper.create_variable_for_type_inference(input.dtype)
    samples = helper.create_variable_for_type_inference(label.dtype)
    helper.append_op(
        type=layer,
        inputs=inputs,
        outputs={"Cost": cost, "SampleLogits": logits, "SampleLabels": samples},
        attrs={
            "num_total_classes": int(num_total_classes),
            "num_neg_samples": negatives,
            "seed": seed,
            "sampler": _SAMPLERS[sampler],
            "is_sparse": is_sparse,
            "remote_prefetch": is_sparse,
        },
    )
    return cost / (negatives + 1)


def _custom_distribution(helper: LayerHelper, probabilities: Any, classes: int) -> dict[str, Any]:
    if probabilities is None or len(probabilities) != classes:
        found = "None" if probabilities is None else f"{len(probabilities)} values"
        refuse("nce", f"'custom_dist' must hold one probability for each of the {classes} classes, received {found}")
    accept, alias = _alias_tables(probabilities)
    tables = {
        "CustomDistProbs": np.asarray(probabilities, "float32"),
        "CustomDistAlias": alias,
        "CustomDistAliasProbs": accept,
    }
    made: dict[str, Any] = {}
    for slot, values in tables.items():
        made[slot] = helper.create_parameter(
            attr=ParamAttr(), shape=values.shape, dtype=values.dtype, default_initializer=NumpyArrayInitializer(values)
        )
        made[slot].stop_gradient = True
    return made


def hsigmoid(
    input: Any,
    label: Any,
    num_classes: int,
    param_attr: Any = None,
    bias_attr: Any = None,
    name: str | None = None,
    path_table: Any = None,
    path_code: Any = None,
    is_custom: bool = False,
    is_sparse: bool = False,
) -> Any:
    """Hierarchical sigmoid (Morin and Bengio, 2005): [batch, 1], the sum of the costs of the turns to the class's leaf.

    Args:
        num_classes: leaves of the complete binary tree; with `is_custom` the number of inner nodes.
        path_table, path_code: int64 [batch, depth]: nodes of each row's path and the turns there, filled with -1;
            for a tree of one's own (`is_custom`).
        is_sparse: the gradient of the weight is SelectedRows (only with `is_custom`).
    """
    layer = "hsigmoid"
    check_variable_and_dtype(input, "input", FLOATS, layer)
    check_variable_and_dtype(label, "label", INDICES, layer)
    if is_custom:
        if path_table is None or path_code is None:
            refuse(layer, "'path_table' and 'path_code' must be given when 'is_custom' is True")
    elif path_table is not None or path_code is not None:
        refuse(layer, "'path_table' and 'path_code' need is_custom=True")
    elif num_classes is None or num_classes < 2:
        refuse(layer, f"'num_classes' must be at least 2, received {num_classes}")
    if is_sparse and not is_custom:
        warnings.warn("hsigmoid: is_sparse has an effect only with is_custom=True; the gradient is dense", stacklevel=2)
        is_sparse = False
    helper = LayerHelper("hierarchical_sigmoid", name=name, param_attr=param_attr, bias_attr=bias_attr)
    nodes = num_classes if is_custom else num_classes - 1
    weight = helper.create_parameter(attr=helper.param_attr, shape=[nodes, input.shape[1]], dtype=input.dtype, is_bias=False)
    inputs = {"X": input, "W": weight, "PathTable": path_table, "PathCode": path_code, "Label": label}
    if helper.bias_attr:
        inputs["Bias"] = helper.create_parameter(attr=helper.bias_attr, shape=[nodes, 1], dtype=input.dtype, is_bias=True)
    out = helper.create_variable_for_type_inference(input.dtype)
    before = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="hierarchical_sigmoid",
        inputs=inputs,
        outputs={"Out": out, "PreOut": before, "W_Out": weight},
        attrs={"num_classes": num_classes, "is_sparse": is_sparse, "remote_prefetch": is_sparse},
    )
    return out


def sampled_softmax_with_cross_entropy(
    logits: Any,
    label: Any,
    num_samples: int,
    num_true: int = 1,
    remove_accidental_hits: bool = True,
    use_customized_samples: bool = False,
    customized_samples: Any = None,
    customized_probabilities: Any = None,
    seed: int = 0,
) -> Any:
    """softmax_with_cross_entropy over the true classes and `num_samples` others drawn log-uniformly (Jean et al., 2014).

    Args:
        logits: [batch, classes].
        label: int64 [batch, num_true].
        remove_accidental_hits: a drawn class that is a true one gets a logit of -1e20.
        use_customized_samples: take `customized_samples` [batch, num_true + num_samples] and their
            `customized_probabilities` instead of drawing.
    """
    layer = "sampled_softmax_with_cross_entropy"
    check_variable_and_dtype(logits, "logits", FLOATS, layer)
    check_variable_and_dtype(label, "label", INDICES, layer)
    helper = LayerHelper("sample_logits")
    make = helper.create_variable_for_type_inference
    inputs = {"Logits": logits, "Labels": label}
    if use_customized_samples:
        check_variable(customized_samples, "customized_samples", layer)
        check_variable(customized_probabilities, "customized_probabilities", layer)
        samples, probabilities = customized_samples, customized_probabilities
        inputs |= {"CustomizedSamples": samples, "CustomizedProbabilities": probabilities}
    else:
        samples, probabilities = make("int64"), make(logits.dtype)
    sampled_logits, sampled_label = make(logits.dtype), make("int64")
    one_hot, logits_dim, labels_dim = make("float32"), make(logits.dtype), make(VarType.LOD_TENSOR)
    helper.append_op(
        type="sample_logits",
        inputs=inputs,
        outputs={
            "Samples": samples,
            "Probabilities": probabilities,
            "SampledLabels": sampled_label,
            "SampledLogits": sampled_logits,
            "LogitsDim": logits_dim,
            "LabelsDim": labels_dim,
        },
        attrs={
            "use_customized_samples": use_customized_samples,
            "uniq": True,
            "remove_accidental_hits": remove_accidental_hits,
            "num_samples": num_samples,
            "seed": seed,
        },
    )
    loss: Any = make(logits.dtype)
    softmax = make(logits.dtype)
    helper.append_op(type="one_hot", inputs={"X": sampled_label}, attrs={"depth": num_samples + 1}, outputs={"Out": one_hot})
    helper.append_op(
        type="softmax_with_cross_entropy",
        inputs={"Logits": sampled_logits, "Label": one_hot},
        outputs={"Softmax": softmax, "Loss": loss},
        attrs={"soft_label": True, "ignore_index": 0, "numeric_stable_mode": False},
    )
    return loss / num_true
