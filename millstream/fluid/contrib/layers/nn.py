"""Layers for text matching, click-through models and retrieval by trees."""

from __future__ import annotations

import random
from typing import Any

from millstream.errors import NotSupportedError
from millstream.fluid.initializer import Constant
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers._build import append, int_list
from millstream.fluid.layers._check import (
    FLOATS,
    INDICES,
    NUMBERS,
    check_choice,
    check_type,
    check_variable,
    check_variable_and_dtype,
    check_variables,
    is_variable,
    refuse,
    refuse_type,
)
from millstream.fluid.layers.detection._emit import emit
from millstream.fluid.layers.nn.manipulate import reshape, slice
from millstream.ir import names
from millstream.ir.types import to_var_type

__all__ = [
    "fused_elemwise_activation",
    "fused_embedding_seq_pool",
    "match_matrix_tensor",
    "multiclass_nms2",
    "partial_concat",
    "partial_sum",
    "rank_attention",
    "search_pyramid_hash",
    "sequence_topk_avg_pooling",
    "shuffle_batch",
    "tdm_child",
    "tdm_sampler",
    "tree_conv",
    "var_conv_2d",
]


def fused_elemwise_activation(
    x: Any, y: Any, functor_list: Any, axis: int = -1, scale: float = 0.0, save_intermediate_out: bool = True
) -> Any:
    """A binary operator and a unary one: ``[binary, unary]`` is x binary unary(y), ``[unary, binary]`` unary(x binary y).

    Args:
        functor_list: two of elementwise_add, elementwise_mul / scale, relu, tanh, sigmoid; a list or 'a,b'.
        axis: of `x` where `y` begins; scale: factor of 'scale'.
        save_intermediate_out: keep the inner result for the gradient.
    """
    layer = "fused_elemwise_activation"
    if isinstance(functor_list, str):
        functor_list = functor_list.split(",")
    if not isinstance(functor_list, (list, tuple)) or len(functor_list) != 2:
        refuse(layer, f"'functor_list' must be two names, received {functor_list!r}")
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable_and_dtype(y, "y", FLOATS, layer)
    attrs = {
        "axis": axis,
        "scale": scale,
        "save_intermediate_out": save_intermediate_out,
        "functor_list": list(functor_list),
    }
    outputs = [("Out", x.dtype), ("IntermediateOut", x.dtype)]
    return emit(layer, {"X": x, "Y": y}, outputs, attrs)[0]


def sequence_topk_avg_pooling(input: Any, row: Any, col: Any, topks: Any, channel_num: int) -> Any:
    """Mean of the greatest k elements of each row of each channel, for each k of `topks`.

    Args:
        input: sequence [., 1] of channel_num * rows * columns elements; row, col: sequences whose lengths are those.

    Returns:
        sequence [rows, channel_num * len(topks)].
    """
    layer = "sequence_topk_avg_pooling"
    for value, argument in ((input, "input"), (row, "row"), (col, "col")):
        check_variable(value, argument, layer)
    helper = LayerHelper(layer)
    out = helper.create_variable_for_type_inference(input.dtype)
    pos = helper.create_variable_for_type_inference(input.dtype, stop_gradient=True)
    helper.append_op(
        type=layer,
        inputs={"X": input, "ROW": row, "COLUMN": col},
        outputs={"Out": out, "pos": pos},
        attrs={"topks": list(topks), "channel_num": channel_num},
    )
    return out


def var_conv_2d(
    input: Any,
    row: Any,
    col: Any,
    input_channel: int,
    output_channel: int,
    filter_size: Any,
    stride: Any = 1,
    param_attr: Any = None,
    act: str | None = None,
    dtype: Any = "float32",
    name: str | None = None,
) -> Any:
    """Convolution of images that each have their own height and width (the lengths of `row` and `col`), padded to stay.

    Args:
        input: sequence [., 1] of input_channel * rows * columns elements.

    Returns:
        sequence [., 1] of output_channel * rows / stride * columns / stride elements.
    """
    layer = "var_conv_2d"
    for value, argument in ((input, "input"), (row, "row"), (col, "col")):
        check_variable(value, argument, layer)
    kernel, step = int_list(filter_size, 2, "filter_size", layer), int_list(stride, 2, "stride", layer)
    helper = LayerHelper(layer, param_attr=param_attr, act=act, name=name)
    weight_shape = [int(output_channel), int(input_channel) * kernel[0] * kernel[1]]
    weight = helper.create_parameter(attr=helper.param_attr, shape=weight_shape, dtype=dtype)
    out = helper.create_variable_for_type_inference(dtype)
    columns = helper.create_variable_for_type_inference(dtype, stop_gradient=True)
    helper.append_op(
        type=layer,
        inputs={"X": input, "ROW": row, "COLUMN": col, "W": weight},
        outputs={"Out": out, "Col": columns},
        attrs={
            "InputChannel": input_channel,
            "OutputChannel": output_channel,
            "StrideH": step[0],
            "StrideW": step[1],
            "KernelH": kernel[0],
            "KernelW": kernel[1],
        },
    )
    return helper.append_activation(out)


def match_matrix_tensor(
    x: Any,
    y: Any,
    channel_num: int,
    act: str | None = None,
    param_attr: Any = None,
    dtype: Any = "float32",
    name: str | None = None,
) -> tuple[Any, Any]:
    """x_i W_c y_j for all words i, j of two sequences and all channels c.

    Args:
        x, y: sequences [., h].

    Returns:
        sequence [., 1] of channel_num * len(x) * len(y) elements, and x W.
    """
    layer = "match_matrix_tensor"
    check_variable_and_dtype(x, "x", FLOATS, layer)
    check_variable_and_dtype(y, "y", FLOATS, layer)
    if x.shape[-1] != y.shape[-1]:
        refuse(layer, f"x and y must have one width, received {x.describe()} and {y.describe()}")
    helper = LayerHelper(layer, param_attr=param_attr, act=act, name=name)
    weight_shape = [int(x.shape[-1]), int(channel_num), int(y.shape[-1])]
    weight = helper.create_parameter(attr=helper.param_attr, shape=weight_shape, dtype=dtype)
    out = helper.create_variable_for_type_inference(dtype)
    product = helper.create_variable_for_type_inference(dtype, stop_gradient=True)
    helper.append_op(
        type=layer, inputs={"X": x, "Y": y, "W": weight}, outputs={"Out": out, "Tmp": product}, attrs={"dim_t": channel_num}
    )
    return helper.append_activation(out), product


def tree_conv(
    nodes_vector: Any,
    edge_set: Any,
    output_size: int,
    num_filters: int = 1,
    max_depth: int = 2,
    act: str | None = "tanh",
    param_attr: Any = None,
    bias_attr: Any = None,
    name: str | None = None,
) -> Any:
    """Tree-based convolution (Mou et al., 2016, arXiv:1409.5718).

    Args:
        nodes_vector: [batch, nodes, size]; edge_set: int32 [batch, edges, 2] of (parent, child) from 1, 0 for padding.

    Returns:
        [batch, nodes, output_size, num_filters].
    """
    layer = "tree_conv"
    check_variable_and_dtype(nodes_vector, "nodes_vector", FLOATS, layer)
    check_variable_and_dtype(edge_set, "edge_set", INDICES, layer)
    helper = LayerHelper(layer, param_attr=param_attr, bias_attr=bias_attr, act=act, name=name)
    shape = [int(nodes_vector.shape[2]), 3, output_size, num_filters]
    weight = helper.create_parameter(attr=helper.param_attr, shape=shape, dtype=nodes_vector.dtype)
    out = helper.create_variable_for_type_inference(nodes_vector.dtype)
    helper.append_op(
        type=layer,
        inputs={"NodesVector": nodes_vector, "EdgeSet": edge_set, "Filter": weight},
        outputs={"Out": out},
        attrs={"max_depth": max_depth},
    )
    return helper.append_activation(helper.append_bias_op(out))


def fused_embedding_seq_pool(
    input: Any,
    size: Any,
    is_sparse: bool = False,
    padding_idx: int | None = None,
    combiner: str = "sum",
    param_attr: Any = None,
    dtype: Any = "float32",
) -> Any:
    """Embeddings summed over each sequence, [sequences, size[1]].

    Args:
        input: sequence int64 [., 1]; padding_idx: an id that counts as zeros; negative ones count from the end.
        combiner: 'sum'.
    """
    layer = "fused_embedding_seq_pool"
    check_variable_and_dtype(input, "input", ("int64",), layer)
    check_choice(combiner, "combiner", ("sum",), layer)
    helper = LayerHelper(layer, param_attr=param_attr)
    weight = helper.create_parameter(attr=helper.param_attr, shape=size, dtype=dtype)
    out = helper.create_variable_for_type_inference(dtype)
    if padding_idx is None:
        padding_idx = -1
    elif padding_idx < 0:
        padding_idx += size[0]
    helper.append_op(
        type=layer,
        inputs={"Ids": input, "W": weight},
        outputs={"Out": out},
        attrs={"is_sparse": is_sparse, "combiner": combiner, "padding_idx": padding_idx},
    )
    return out


def multiclass_nms2(
    bboxes: Any,
    scores: Any,
    score_threshold: float,
    nms_top_k: int,
    keep_top_k: int,
    nms_threshold: float = 0.3,
    normalized: bool = True,
    nms_eta: float = 1.0,
    background_label: int = 0,
    return_index: bool = False,
    name: str | None = None,
) -> Any:
    """`fluid.layers.multiclass_nms`, which can also return the index of each box kept, int64 [found, 1]."""
    layer = "multiclass_nms2"
    check_variable_and_dtype(bboxes, "bboxes", FLOATS, layer)
    check_variable_and_dtype(scores, "scores", FLOATS, layer)
    attrs = {
        "background_label": background_label,
        "score_threshold": score_threshold,
        "nms_top_k": nms_top_k,
        "nms_threshold": nms_threshold,
        "keep_top_k": keep_top_k,
        "nms_eta": nms_eta,
        "normalized": normalized,
    }
    outputs = [("Out", bboxes.dtype), ("Index", "int64")]
    out, index = emit(layer, {"BBoxes": bboxes, "Scores": scores}, outputs, attrs, name=name, constant=True)
    return (out, index) if return_index else out


def search_pyramid_hash(
    input: Any,
    num_emb: int,
    space_len: int,
    pyramid_layer: int,
    rand_len: int,
    drop_out_percent: float,
    is_training: Any,
    use_filter: bool,
    white_list_len: int,
    black_list_len: int,
    seed: int,
    lr: float,
    param_attr: Any = None,
    param_attr_wl: Any = None,
    param_attr_bl: Any = None,
    name: str | None = None,
    distribute_update_vars: Any = None,
    dtype: Any = "float32",
) -> Any:
    """Sums of hashed embeddings of all n-grams, n = 2 … pyramid_layer, [., num_emb].

    Args:
        input: sequence int32 [., 1]; num_emb: a multiple of rand_len; space_len: size of the shared table.
        use_filter: only n-grams on the white list of that length and not on the black list count.
        lr: rate of the operator's own update; distribute_update_vars: names among the three parameters.
    """
    layer = "search_pyramid_hash"
    check_variable_and_dtype(input, "input", ("int32",), layer)
    helper = LayerHelper(layer, param_attr=param_attr, name=name)
    weight: Any = helper.create_parameter(attr=helper.param_attr, shape=[space_len + rand_len, 1], dtype=dtype)
    weight.stop_gradient = True
    inputs: dict[str, Any] = {"X": input, "W": weight}
    known = {weight.name}
    for slot, length, attr in (("WhiteList", white_list_len, param_attr_wl), ("BlackList", black_list_len, param_attr_bl)):
        if length > 0:
            inputs[slot] = helper.create_parameter(attr=attr, shape=[length, 1], dtype=dtype)
            inputs[slot].stop_gradient = True
            known.add(inputs[slot].name)
    updates = [distribute_update_vars] if isinstance(distribute_update_vars, str) else list(distribute_update_vars or [])
    unknown = [update for update in updates if update not in known]
    if unknown:
        refuse(layer, f"'distribute_update_vars' names {unknown}; the parameters are {sorted(known)}")
    out = helper.create_variable_for_type_inference(dtype)
    dropped = helper.create_variable_for_type_inference(dtype)
    kept = helper.create_variable_for_type_inference(dtype)
    helper.append_op(
        type="pyramid_hash",
        inputs=inputs,
        outputs={"Out": out, "X_Temp_Out": kept, "DropPos": dropped},
        attrs={
            "num_emb": num_emb,
            "space_len": space_len,
            "pyramid_layer": pyramid_layer,
            "rand_len": rand_len,
            "drop_out_percent": drop_out_percent,
            "is_training": int(bool(is_training)),
            "use_filter": use_filter,
            "white_list_len": white_list_len,
            "black_list_len": black_list_len,
            "seed": seed,
            "lr": lr,
            "distribute_update_vars": ",".join(updates),
        },
    )
    return out


def shuffle_batch(x: Any, seed: Any = None) -> Any:
    """The rows of `x` (all dimensions but the last) in a random order.

    Args:
        seed: an int, or an int64 Variable [1] that is read and moved on; None: an int drawn now by Python's `random`.
    """
    layer = "shuffle_batch"
    check_variable(x, "x", layer)
    helper = LayerHelper(layer)
    out = helper.create_variable_for_type_inference(x.dtype)
    order = helper.create_variable_for_type_inference("int64")
    attrs = {}
    if seed is None and helper.main_program.random_seed != 0:
        seed = helper.main_program.random_seed
    if seed is None:
        seed = random.randint(-65536, 65535)
    if isinstance(seed, int):
        attrs["startup_seed"] = seed
        # Empty until the first run: the operator then starts from `startup_seed`.
        seed = helper.create_variable(name=names.generate("shuffle_batch_seed"), dtype="int64", shape=[0], persistable=True)
    elif not is_variable(seed):
        refuse_type(layer, f"'seed' must be an int or a Variable, received {type(seed).__name__}")
    helper.append_op(
        type=layer,
        inputs={"X": x, "Seed": seed},
        outputs={"Out": out, "ShuffleIdx": order, "SeedOut": seed},
        attrs=attrs,
    )
    return out


def _parts(layer: str, input: Any, start_index: int, length: int) -> Any:
    inputs = check_variables(input, "input", NUMBERS, layer)
    attrs = {"start_index": start_index, "length": length}
    return append(layer, layer, {"X": inputs}, attrs, dtype=inputs[0].dtype)


def partial_concat(input: Any, start_index: int = 0, length: int = -1) -> Any:
    """Columns `start_index` … of each of the matrices `input`, side by side; `length` of them, -1: all that follow."""
    return _parts("partial_concat", input, start_index, length)


def partial_sum(input: Any, start_index: int = 0, length: int = -1) -> Any:
    """Columns `start_index` … of the matrices `input`, added; `length` of them, -1: all that follow."""
    return _parts("partial_sum", input, start_index, length)


def tdm_child(x: Any, node_nums: int, child_nums: int, param_attr: Any = None, dtype: Any = "int32") -> tuple[Any, Any]:
    """Children of nodes of a tree (TDM, Zhu et al., 2018, arXiv:1801.02294).

    Args:
        x: node ids [batch, 1]; param_attr: of the table [node_nums, 3 + child_nums]: item, layer, parent, children.

    Returns:
        children and 1 where a child is a leaf, both [batch, 1, child_nums] of `dtype`.
    """
    layer = "tdm_child"
    check_variable_and_dtype(x, "x", INDICES, layer)
    check_choice(dtype, "dtype", INDICES, layer)
    helper = LayerHelper(layer, param_attr=param_attr)
    table: Any = helper.create_parameter(
        attr=helper.param_attr, shape=[node_nums, 3 + child_nums], dtype=dtype, default_initializer=Constant(0)
    )
    table.stop_gradient = True
    child = helper.create_variable_for_type_inference(dtype)
    leaf = helper.create_variable_for_type_inference(dtype)
    helper.append_op(
        type=layer,
        inputs={"X": x, "TreeInfo": table},
        outputs={"Child": child, "LeafMask": leaf},
        attrs={"child_nums": child_nums, "dtype": to_var_type(dtype)},
    )
    return child, leaf


def tdm_sampler(
    x: Any,
    neg_samples_num_list: Any,
    layer_node_num_list: Any,
    leaf_node_num: int,
    tree_travel_attr: Any = None,
    tree_layer_attr: Any = None,
    output_positive: bool = True,
    output_list: bool = True,
    seed: int = 0,
    tree_dtype: Any = "int32",
    dtype: Any = "int32",
) -> tuple[Any, Any, Any]:
    """On each layer of a tree, the positive node on the way to a leaf and random negatives (TDM, arXiv:1801.02294).

    Args:
        x: leaves [batch, 1]; neg_samples_num_list, layer_node_num_list: negatives and nodes of each layer.
        tree_travel_attr, tree_layer_attr: of the tables of ways [leaf_node_num, layers] and of nodes [nodes, 1].
        output_list: lists with one Variable [batch, samples, 1] for each layer; else whole Variables.

    Returns:
        samples, labels (1 for the positive), masks (0 for padding).
    """
    layer = "tdm_sampler"
    check_variable_and_dtype(x, "x", INDICES, layer)
    check_choice(tree_dtype, "tree_dtype", INDICES, layer)
    check_choice(dtype, "dtype", INDICES, layer)
    if len(neg_samples_num_list) != len(layer_node_num_list):
        refuse(layer, f"{len(neg_samples_num_list)} counts of negatives for {len(layer_node_num_list)} layers")
    offsets = [0]
    for negatives, nodes in zip(neg_samples_num_list, layer_node_num_list):
        check_type(negatives, "neg_samples_num_list[i]", int, layer)
        if negatives >= nodes:
            refuse(layer, f"a layer of {nodes} nodes cannot give {negatives} negatives besides the positive")
        offsets.append(offsets[-1] + nodes)
    helper = LayerHelper(layer)
    tables = [
        helper.create_parameter(attr=attr, shape=shape, dtype=tree_dtype, default_initializer=Constant(0))
        for attr, shape in (
            (tree_travel_attr, [leaf_node_num, len(layer_node_num_list)]),
            (tree_layer_attr, [offsets[-1], 1]),
        )
    ]
    found = [helper.create_variable_for_type_inference(dtype, stop_gradient=True) for _ in range(3)]
    helper.append_op(
        type=layer,
        inputs={"X": x, "Travel": tables[0], "Layer": tables[1]},
        outputs={"Out": found[0], "Labels": found[1], "Mask": found[2]},
        attrs={
            "neg_samples_num_list": list(neg_samples_num_list),
            "output_positive": output_positive,
            "layer_offset_lod": offsets,
            "seed": seed,
            "dtype": to_var_type(dtype),
        },
    )
    if not output_list:
        return found[0], found[1], found[2]
    return _by_layer(found, [n + int(output_positive) for n in neg_samples_num_list])


def _by_layer(found: list[Any], widths: list[int]) -> tuple[Any, Any, Any]:
    """Each of `found` [batch, sum of widths] cut into [batch, width, 1]."""
    lists: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    start = 0
    for width in widths:
        cut = [slice(var, axes=[1], starts=[start], ends=[start + width]) for var in found]
        for part, into in zip(cut, lists):
            shaped = reshape(part, [-1, width, 1])
            shaped.stop_gradient = True
            into.append(shaped)
        start += width
    return lists


def rank_attention(input: Any, rank_offset: Any, rank_param_shape: Any, rank_param_attr: Any, max_rank: int = 3) -> Any:
    """An operator that exists for GPUs only.

    Raises:
        NotSupportedError: always; there is no kernel for CPUs to follow.
    """
    raise NotSupportedError(
        "rank_attention: this operator runs on GPUs only. Gather the parameters of each row by its rank with "
        "fluid.layers.gather and multiply with fluid.layers.matmul instead."
    )
