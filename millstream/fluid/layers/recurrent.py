"""Recurrent layers over LoD sequences, CRF, CTC and beam search."""

from __future__ import annotations

from typing import Any

from millstream.fluid.initializer import Xavier
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    check_variable,
    check_variable_and_dtype,
    refuse,
    refuse_type,
)
from millstream.fluid.layers._former import inserted
from millstream.fluid.param_attr import ParamAttr
from millstream.ir.types import VarType

__all__ = [
    "beam_search",
    "beam_search_decode",
    "chunk_eval",
    "crf_decoding",
    "ctc_greedy_decoder",
    "dynamic_gru",
    "dynamic_lstm",
    "dynamic_lstmp",
    "edit_distance",
    "gru_unit",
    "linear_chain_crf",
    "lstm",
    "lstm_unit",
    "warpctc",
]

_GATES = {"identity": 0, "sigmoid": 1, "tanh": 2, "relu": 3}


def _activation(value: str, argument: str, layer: str) -> str:
    if value not in _GATES:
        refuse(layer, f"{argument} must be one of {', '.join(_GATES)}, received {value!r}")
    return value


def dynamic_lstm(
    input: Any,
    size: int,
    h_0: Any = None,
    c_0: Any = None,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_peepholes: bool = True,
    is_reverse: bool = False,
    gate_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    candidate_activation: str = "tanh",
    dtype: Any = "float32",
    name: str | None = None,
) -> tuple[Any, Any]:
    """LSTM over sequences (Hochreiter and Schmidhuber, 1997; peepholes: Gers and Schmidhuber, 2000).

    Args:
        input: rows x·W of width `size` = 4 * hidden, in the order candidate, input, forget, output (an fc makes them).
        h_0, c_0: initial states [sequences, hidden]; zeros when None.
        bias_attr: the bias is [1, 4 * hidden], with peepholes [1, 7 * hidden]; False is not possible.

    Returns:
        (hidden, cell), rows of width hidden with the LoD of `input`.
    """
    check_variable_and_dtype(input, "input", FLOATS, "dynamic_lstm")
    if bias_attr is False:
        refuse("dynamic_lstm", "bias_attr must not be False: the operator needs its bias")
    helper = LayerHelper("lstm", param_attr=param_attr, bias_attr=bias_attr, name=name)
    hidden = size // 4
    weight = helper.create_parameter(attr=helper.param_attr, shape=[hidden, 4 * hidden], dtype=dtype)
    bias = helper.create_parameter(
        attr=helper.bias_attr, shape=[1, (7 if use_peepholes else 4) * hidden], dtype=dtype, is_bias=True
    )
    out, cell, gate, pre = (helper.create_variable_for_type_inference(dtype) for _ in range(4))
    inputs = {"Input": input, "Weight": weight, "Bias": bias}
    _initial(inputs, "dynamic_lstm", h_0, c_0)
    helper.append_op(
        type="lstm",
        inputs=inputs,
        outputs={"Hidden": out, "Cell": cell, "BatchGate": gate, "BatchCellPreAct": pre},
        attrs={
            "use_peepholes": use_peepholes,
            "is_reverse": is_reverse,
            "gate_activation": _activation(gate_activation, "gate_activation", "dynamic_lstm"),
            "cell_activation": _activation(cell_activation, "cell_activation", "dynamic_lstm"),
            "candidate_activation": _activation(candidate_activation, "candidate_activation", "dynamic_lstm"),
        },
    )
    return out, cell


def _initial(inputs: dict[str, Any], layer: str, h_0: Any, c_0: Any) -> None:
    if (h_0 is None) != (c_0 is None) and c_0 is not None:
        refuse(layer, "c_0 needs h_0")
    for slot, value in (("H0", h_0), ("C0", c_0)):
        if value is not None:
            check_variable(value, slot.lower().replace("0", "_0"), layer)
            inputs[slot] = value


def dynamic_lstmp(
    input: Any,
    size: int,
    proj_size: int,
    param_attr: Any = None,
    bias_attr: Any = None,
    use_peepholes: bool = True,
    is_reverse: bool = False,
    gate_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    candidate_activation: str = "tanh",
    proj_activation: str = "tanh",
    dtype: Any = "float32",
    name: str | None = None,
    h_0: Any = None,
    c_0: Any = None,
    cell_clip: float | None = None,
    proj_clip: float | None = None,
) -> tuple[Any, Any]:
    """LSTM whose hidden state is projected to `proj_size` (Sak, Senior and Beaufays, 2014).

    Returns:
        (projection [rows, proj_size], cell [rows, size / 4]) with the LoD of `input`.
    """
    check_variable_and_dtype(input, "input", FLOATS, "dynamic_lstmp")
    if bias_attr is False:
        refuse("dynamic_lstmp", "bias_attr must not be False: the operator needs its bias")
    helper = LayerHelper("lstmp", param_attr=param_attr, bias_attr=bias_attr, name=name)
    hidden = size // 4
    weight = helper.create_parameter(attr=helper.param_attr, shape=[proj_size, 4 * hidden], dtype=dtype)
    proj_weight = helper.create_parameter(attr=helper.param_attr, shape=[hidden, proj_size], dtype=dtype)
    bias = helper.create_parameter(
        attr=helper.bias_attr, shape=[1, (7 if use_peepholes else 4) * hidden], dtype=dtype, is_bias=True
    )
    names = ("Projection", "Cell", "OrderedP0", "BatchHidden", "BatchGate", "BatchCellPreAct")
    outputs = {n: helper.create_variable_for_type_inference(dtype) for n in names}
    projection, cell = outputs["Projection"], outputs["Cell"]
    del outputs["OrderedP0"]  # a temporary of the name counter only
    inputs = {"Input": input, "Weight": weight, "ProjWeight": proj_weight, "Bias": bias}
    _initial(inputs, "dynamic_lstmp", h_0, c_0)
    helper.append_op(
        type="lstmp",
        inputs=inputs,
        outputs=outputs,
        attrs={
            "use_peepholes": use_peepholes,
            "cell_clip": float(cell_clip or 0.0),
            "proj_clip": float(proj_clip or 0.0),
            "is_reverse": is_reverse,
            "gate_activation": _activation(gate_activation, "gate_activation", "dynamic_lstmp"),
            "cell_activation": _activation(cell_activation, "cell_activation", "dynamic_lstmp"),
            "candidate_activation": _activation(candidate_activation, "candidate_activation", "dynamic_lstmp"),
            "proj_activation": _activation(proj_activation, "proj_activation", "dynamic_lstmp"),
        },
    )
    return projection, cell


def dynamic_gru(
    input: Any,
    size: int,
    param_attr: Any = None,
    bias_attr: Any = None,
    is_reverse: bool = False,
    gate_activation: str = "sigmoid",
    candidate_activation: str = "tanh",
    h_0: Any = None,
    origin_mode: bool = False,
) -> Any:
    """GRU over sequences (Cho et al., 2014, arXiv:1406.1078; origin_mode: Chung et al., 2014, arXiv:1412.3555).

    Args:
        input: rows x·W of width 3 * `size`: update, reset, candidate (an fc makes them).
        h_0: initial state [sequences, size]; zeros when None.

    Returns:
        hidden [rows, size] with the LoD of `input`.
    """
    check_variable_and_dtype(input, "input", FLOATS, "dynamic_gru")
    helper = LayerHelper("gru", param_attr=param_attr, bias_attr=bias_attr)
    dtype = input.dtype
    weight = helper.create_parameter(attr=helper.param_attr, shape=[size, 3 * size], dtype=dtype)
    inputs = {"Input": input, "Weight": weight}
    bias = helper.create_parameter(attr=helper.bias_attr, shape=[1, 3 * size], dtype=dtype, is_bias=True)
    if bias is not None:
        inputs["Bias"] = bias
    if h_0 is not None:
        check_variable(h_0, "h_0", "dynamic_gru")
        inputs["H0"] = h_0
    hidden, gate, reset, batch_hidden = (helper.create_variable_for_type_inference(dtype) for _ in range(4))
    helper.append_op(
        type="gru",
        inputs=inputs,
        outputs={
            "Hidden": hidden,
            "BatchGate": gate,
            "BatchResetHiddenPrev": reset,
            "BatchHidden": batch_hidden,
        },
        attrs={
            "is_reverse": is_reverse,
            "gate_activation": _activation(gate_activation, "gate_activation", "dynamic_gru"),
            "activation": _activation(candidate_activation, "candidate_activation", "dynamic_gru"),
            "origin_mode": origin_mode,
        },
    )
    return hidden


def gru_unit(
    input: Any,
    hidden: Any,
    size: int,
    param_attr: Any = None,
    bias_attr: Any = None,
    activation: str = "tanh",
    gate_activation: str = "sigmoid",
    origin_mode: bool = False,
) -> tuple[Any, Any, Any]:
    """One step of a GRU.

    Args:
        input: [batch, size], size = 3 * width.
        hidden: the previous state [batch, width].
        activation, gate_activation: checked, and otherwise without effect: 1.8.5 always uses tanh and sigmoid here,
            and models were trained so. The operator's own attributes are honoured.

    Returns:
        (new hidden, reset hidden, gates).
    """
    check_variable_and_dtype(input, "input", FLOATS, "gru_unit")
    check_variable_and_dtype(hidden, "hidden", FLOATS, "gru_unit")
    _activation(activation, "activation", "gru_unit")
    _activation(gate_activation, "gate_activation", "gru_unit")
    helper = LayerHelper("gru_unit", param_attr=param_attr, bias_attr=bias_attr)
    dtype = input.dtype
    width = size // 3
    weight = helper.create_parameter(attr=helper.param_attr, shape=[width, 3 * width], dtype=dtype)
    gate, reset, new = (helper.create_variable_for_type_inference(dtype) for _ in range(3))
    inputs = {"Input": input, "HiddenPrev": hidden, "Weight": weight}
    bias = helper.create_parameter(attr=helper.bias_attr, shape=[1, 3 * width], dtype=dtype, is_bias=True)
    if bias is not None:
        inputs["Bias"] = bias
    helper.append_op(
        type="gru_unit",
        inputs=inputs,
        outputs={"Gate": gate, "ResetHiddenPrev": reset, "Hidden": new},
        attrs={"activation": _GATES["tanh"], "gate_activation": _GATES["sigmoid"], "origin_mode": origin_mode},
    )
    return new, reset, gate


def lstm_unit(
    x_t: Any,
    hidden_t_prev: Any,
    cell_t_prev: Any,
    forget_bias: float = 0.0,
    param_attr: Any = None,
    bias_attr: Any = None,
    name: str | None = None,
) -> tuple[Any, Any]:
    """One step of an LSTM with its own fc over [x_t, hidden_t_prev]; returns (hidden, cell)."""
    from millstream.fluid.layers import concat, fc

    for value, what in ((x_t, "x_t"), (hidden_t_prev, "hidden_t_prev"), (cell_t_prev, "cell_t_prev")):
        check_variable_and_dtype(value, what, FLOATS, "lstm_unit")
        if len(value.shape) != 2:
            refuse("lstm_unit", f"{what} must be [batch, width], received {value.describe()}")
    helper = LayerHelper("lstm_unit", name=name)
    size = cell_t_prev.shape[1]
    joined = concat(input=[x_t, hidden_t_prev], axis=1)
    gates = fc(input=joined, size=4 * size, param_attr=param_attr, bias_attr=bias_attr)
    cell = helper.create_variable_for_type_inference(x_t.dtype)
    hidden = helper.create_variable_for_type_inference(x_t.dtype)
    helper.append_op(
        type="lstm_unit",
        inputs={"X": gates, "C_prev": cell_t_prev},
        outputs={"C": cell, "H": hidden},
        attrs={"forget_bias": forget_bias},
    )
    return hidden, cell


def lstm(
    input: Any,
    init_h: Any,
    init_c: Any,
    max_len: int,
    hidden_size: int,
    num_layers: int,
    dropout_prob: float = 0.0,
    is_bidirec: bool = False,
    is_test: bool = False,
    name: str | None = None,
    default_initializer: Any = None,
    seed: int = -1,
) -> tuple[Any, Any, Any]:
    """Stacked LSTM over padded input [T, batch, d] (cuDNN's; here it runs on the CPU as well).

    Args:
        init_h, init_c: [layers * directions, batch, hidden_size].
        max_len: the T that Fluid needs; the input's own counts here.
        dropout_prob: dropout between layers (not after the last), only in training.

    Returns:
        (out [T, batch, hidden * directions], last hidden, last cell).
    """
    check_variable_and_dtype(input, "input", FLOATS, "lstm")
    helper = LayerHelper("cudnn_lstm", name=name)
    dtype = input.dtype
    input_size = input.shape[-1]
    directions = 2 if is_bidirec else 1
    weights = 0
    for layer in range(num_layers):
        width = input_size if layer == 0 else hidden_size * directions
        weights += directions * 4 * hidden_size * (width + hidden_size + 2)
    weight = helper.create_parameter(
        attr=helper.param_attr, shape=[weights], dtype=dtype, default_initializer=default_initializer or Xavier()
    )
    out, last_h, last_c = (helper.create_variable_for_type_inference(dtype) for _ in range(3))
    cache = helper.create_global_variable(persistable=True, type=VarType.RAW)
    helper.append_op(
        type="cudnn_lstm",
        inputs={"Input": input, "InitH": init_h, "InitC": init_c, "W": weight, "Cache": cache},
        outputs={"Out": out, "last_h": last_h, "last_c": last_c},
        attrs={
            "max_len": max_len,
            "is_bidirec": is_bidirec,
            "input_size": input_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
            "is_test": is_test,
            "dropout_prob": dropout_prob,
            "seed": seed,
        },
    )
    return out, last_h, last_c


# ---- CRF and CTC ---------------------------------------------------------------------------------
def linear_chain_crf(input: Any, label: Any, param_attr: Any = None, length: Any = None) -> Any:
    """Negative log-likelihood of `label` under a linear-chain CRF (Lafferty et al., 2001), one number a sequence.

    Args:
        input: emissions [rows, tags] with LoD, or [batch, T, tags] with `length`.
        label: int64 tags in the same form.
        param_attr: the transitions [tags + 2, tags]: rows 0 and 1 are start and end weights.
        length: int64 [batch] for the padded form.
    """
    check_variable_and_dtype(input, "input", FLOATS, "linear_chain_crf")
    check_variable_and_dtype(label, "label", ("int64",), "linear_chain_crf")
    helper = LayerHelper("linear_chain_crf", param_attr=param_attr)
    size = input.shape[2] if length is not None else input.shape[1]
    transition = helper.create_parameter(attr=helper.param_attr, shape=[size + 2, size], dtype=input.dtype)
    alpha, emission, exps, likelihood = (helper.create_variable_for_type_inference(input.dtype) for _ in range(4))
    inputs = {"Emission": [input], "Transition": transition, "Label": [label]}
    if length is not None:
        inputs["Length"] = [length]
    helper.append_op(
        type="linear_chain_crf",
        inputs=inputs,
        outputs={
            "Alpha": [alpha],
            "EmissionExps": [emission],
            "TransitionExps": exps,
            "LogLikelihood": likelihood,
        },
    )
    return likelihood


def crf_decoding(input: Any, param_attr: Any, label: Any = None, length: Any = None) -> Any:
    """The best tag sequence under the CRF whose transitions `param_attr` names; with `label`, 1 where it is right.

    Raises TypeError: `param_attr` is not a ParamAttr with the name of an existing parameter.
    """
    check_variable_and_dtype(input, "input", FLOATS, "crf_decoding")
    if not isinstance(param_attr, ParamAttr) or param_attr.name is None:
        refuse_type("crf_decoding", f"'param_attr' must be a ParamAttr with a name, received {param_attr!r}")
    helper = LayerHelper("crf_decoding")
    transition = helper.get_parameter(param_attr.name)
    path = helper.create_variable_for_type_inference("int64")
    inputs = {"Emission": [input], "Transition": transition, "Label": label}
    if length is not None:
        inputs["Length"] = length
    helper.append_op(type="crf_decoding", inputs=inputs, outputs={"ViterbiPath": [path]})
    return path


def chunk_eval(
    input: Any,
    label: Any,
    chunk_scheme: str,
    num_chunk_types: int,
    excluded_chunk_types: Any = None,
    seq_length: Any = None,
) -> tuple[Any, ...]:
    """(precision, recall, F1, inferred chunks, labelled chunks, correct chunks) of IOB, IOE, IOBES or plain tags."""
    check_variable_and_dtype(input, "input", ("int64",), "chunk_eval")
    check_variable_and_dtype(label, "label", ("int64",), "chunk_eval")
    helper = LayerHelper("chunk_eval")
    precision, recall, f1 = (helper.create_variable_for_type_inference("float32") for _ in range(3))
    inferred, labelled, correct = (helper.create_variable_for_type_inference("int64") for _ in range(3))
    inputs = {"Inference": [input], "Label": [label]}
    if seq_length is not None:
        inputs["SeqLength"] = [seq_length]
    helper.append_op(
        type="chunk_eval",
        inputs=inputs,
        outputs={
            "Precision": [precision],
            "Recall": [recall],
            "F1-Score": [f1],
            "NumInferChunks": [inferred],
            "NumLabelChunks": [labelled],
            "NumCorrectChunks": [correct],
        },
        attrs={
            "num_chunk_types": num_chunk_types,
            "chunk_scheme": chunk_scheme,
            "excluded_chunk_types": list(excluded_chunk_types or []),
        },
    )
    return precision, recall, f1, inferred, labelled, correct


def warpctc(
    input: Any,
    label: Any,
    blank: int = 0,
    norm_by_times: bool = False,
    input_length: Any = None,
    label_length: Any = None,
) -> Any:
    """CTC loss (Graves et al., 2006) of unscaled logits, one number a sequence: [sequences, 1].

    Args:
        input: [rows, classes + 1] with LoD, or [T, batch, classes + 1] with lengths.
        label: int32 in the same form; never contains `blank`.
        norm_by_times: the gradient (only) is divided by the number of steps.
    """
    check_variable_and_dtype(input, "input", FLOATS, "warpctc")
    check_variable_and_dtype(label, "label", ("int32",), "warpctc")
    helper = LayerHelper("warpctc")
    inputs = {"Logits": [input], "Label": [label]}
    if input_length is not None and label_length is not None:
        inputs |= {"LogitsLength": [input_length], "LabelLength": [label_length]}
    elif input_length is not None or label_length is not None:
        refuse("warpctc", "give both input_length and label_length, or neither")
    loss = helper.create_variable_for_type_inference(input.dtype)
    grad = helper.create_variable_for_type_inference(input.dtype)
    helper.append_op(
        type="warpctc",
        inputs=inputs,
        outputs={"WarpCTCGrad": [grad], "Loss": [loss]},
        attrs={"blank": blank, "norm_by_times": norm_by_times},
    )
    return loss


@inserted(2, str)
@inserted(3, str, 0)
def ctc_greedy_decoder(
    input: Any, blank: int, input_length: Any = None, padding_value: int = 0, name: str | None = None
) -> Any:
    """The likeliest class of each step, repeats merged, blanks dropped.

    Returns:
        Label sequences with LoD; with `input_length` (padded form) (labels [batch, T], lengths [batch, 1]).
    """
    from millstream.fluid.layers import squeeze, topk

    check_variable_and_dtype(input, "input", FLOATS, "ctc_greedy_decoder")
    helper = LayerHelper("ctc_greedy_decoder", name=name)
    _, indices = topk(input, k=1)
    out = helper.create_variable_for_type_inference("int64")
    attrs = {"merge_repeated": True, "blank": blank, "padding_value": padding_value}
    if input_length is None:
        helper.append_op(type="ctc_align", inputs={"Input": [indices]}, outputs={"Output": [out]}, attrs=attrs)
        return out
    length = helper.create_variable_for_type_inference("int64")
    helper.append_op(
        type="ctc_align",
        inputs={"Input": [squeeze(indices, [2])], "InputLength": [input_length]},
        outputs={"Output": [out], "OutputLength": [length]},
        attrs=attrs,
    )
    return out, length


def edit_distance(
    input: Any,
    label: Any,
    normalized: bool = True,
    ignored_tokens: Any = None,
    input_length: Any = None,
    label_length: Any = None,
) -> tuple[Any, Any]:
    """(Levenshtein distance of each pair [sequences, 1], number of sequences).

    Args:
        normalized: divide by the length of the label.
        ignored_tokens: removed from both sides first.
    """
    check_variable_and_dtype(input, "input", ("int64",), "edit_distance")
    check_variable_and_dtype(label, "label", ("int64",), "edit_distance")
    helper = LayerHelper("edit_distance")
    if ignored_tokens:
        input, label = (_erase(helper, v, list(ignored_tokens)) for v in (input, label))
    inputs = {"Hyps": [input], "Refs": [label]}
    if input_length is not None and label_length is not None:
        inputs |= {"HypsLength": [input_length], "RefsLength": [label_length]}
    distance = helper.create_variable_for_type_inference("float32")
    count = helper.create_variable_for_type_inference("int64")
    helper.append_op(
        type="edit_distance",
        inputs=inputs,
        outputs={"Out": [distance], "SequenceNum": [count]},
        attrs={"normalized": normalized},
    )
    return distance, count


def _erase(helper: LayerHelper, value: Any, tokens: list[int]) -> Any:
    out = helper.create_variable_for_type_inference("int64")
    helper.append_op(type="sequence_erase", inputs={"X": [value]}, outputs={"Out": [out]}, attrs={"tokens": tokens})
    return out


# ---- beam search ---------------------------------------------------------------------------------
@inserted(7, str, True)
def beam_search(
    pre_ids: Any,
    pre_scores: Any,
    ids: Any,
    scores: Any,
    beam_size: int,
    end_id: int,
    level: int = 0,
    is_accumulated: bool = True,
    name: str | None = None,
    return_parent_idx: bool = False,
) -> tuple[Any, ...]:
    """One step of beam search: the best `beam_size` continuations of every source sentence.

    Args:
        pre_ids, pre_scores: [beams, 1], the prefixes' last words and scores.
        ids: candidate words [beams, K]; None: the column numbers of `scores`.
        scores: accumulated scores [beams, K] (or, with is_accumulated False, probabilities of the step).

    Returns:
        (selected ids, selected scores[, parent beams]); the LoD tells which prefix each came from.
    """
    for value, what in ((pre_ids, "pre_ids"), (pre_scores, "pre_scores"), (scores, "scores")):
        check_variable(value, what, "beam_search")
    helper = LayerHelper("beam_search", name=name)
    inputs = {"pre_ids": pre_ids, "pre_scores": pre_scores, "scores": scores}
    if ids is not None:
        inputs["ids"] = ids
    selected_scores = helper.create_variable_for_type_inference(pre_scores.dtype)
    selected_ids = helper.create_variable_for_type_inference(pre_ids.dtype)
    parent = helper.create_variable_for_type_inference("int32")
    helper.append_op(
        type="beam_search",
        inputs=inputs,
        outputs={"selected_ids": selected_ids, "selected_scores": selected_scores, "parent_idx": parent},
        attrs={"level": level, "beam_size": beam_size, "end_id": end_id, "is_accumulated": is_accumulated},
    )
    return (selected_ids, selected_scores, parent) if return_parent_idx else (selected_ids, selected_scores)


def beam_search_decode(ids: Any, scores: Any, beam_size: int, end_id: int, name: str | None = None) -> tuple[Any, Any]:
    """Whole sentences from the arrays that beam_search filled step by step: (ids, scores), LoD level 2."""
    check_variable_and_dtype(ids, "ids", INDICES, "beam_search_decode")
    check_variable(scores, "scores", "beam_search_decode")
    helper = LayerHelper("beam_search_decode", name=name)
    sentence_ids = helper.create_variable_for_type_inference(ids.dtype)
    sentence_scores = helper.create_variable_for_type_inference(scores.dtype)
    helper.append_op(
        type="beam_search_decode",
        inputs={"Ids": ids, "Scores": scores},
        outputs={"SentenceIds": sentence_ids, "SentenceScores": sentence_scores},
        attrs={"beam_size": beam_size, "end_id": end_id},
    )
    return sentence_ids, sentence_scores
