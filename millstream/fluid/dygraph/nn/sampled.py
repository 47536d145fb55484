"""NCE, TreeConv, and the two layers that dygraph mode never had."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import NotSupportedError
from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.initializer import NumpyArrayInitializer
from millstream.fluid.layers._check import FLOATS, INDICES, check_choice, check_variable_and_dtype, refuse
from millstream.fluid.layers.sampled_loss import _SAMPLERS, _alias_tables
from millstream.fluid.param_attr import ParamAttr
from millstream.ir import mode


class NCE(Layer):
    """Noise-contrastive estimation (Gutmann and Hyvärinen, 2010): see fluid.layers.nce.

    Args:
        num_total_classes: number of classes; dim: features of the input.
        sample_weight: [batch, 1], weight of each sample; forward()'s own goes before it.
        bias_attr: as in Fluid 1.8.5 there is a bias [classes, 1] only when this is given.
        num_neg_samples: 10 when None.
        sampler: "uniform", "log_uniform" or "custom_dist" with the probabilities `custom_dist`.
        is_sparse: the weight's gradient is SelectedRows.

    forward(input [batch, dim], label int64 [batch, true classes]) -> cost [batch, 1].
    """

    def __init__(
        self, num_total_classes: int, dim: int, sample_weight: Any = None, param_attr: Any = None, bias_attr: Any = None,
        num_neg_samples: int | None = None, sampler: str = "uniform", custom_dist: Any = None, seed: int = 0,
        is_sparse: bool = False, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        check_choice(sampler, "sampler", tuple(_SAMPLERS), "NCE")
        self._num_neg_samples = 10 if num_neg_samples is None else int(num_neg_samples)
        self._dtype, self._sample_weight = dtype, sample_weight
        self._tables: dict[str, Any] = {}
        if sampler == "custom_dist":
            if custom_dist is None or len(custom_dist) != num_total_classes:
                refuse("NCE", f"'custom_dist' must hold one probability for each of the {num_total_classes} classes")
            accept, alias = _alias_tables(custom_dist)
            tables = (np.asarray(custom_dist, "float32"), alias, accept)
            for slot, table in zip(("CustomDistProbs", "CustomDistAlias", "CustomDistAliasProbs"), tables):
                attr = ParamAttr(initializer=NumpyArrayInitializer(table), trainable=False)
                held = self.create_parameter(list(table.shape), attr, table.dtype.name)
                held.stop_gradient = True
                self._tables[slot] = [held]
        self._attributes = {
            "num_total_classes": int(num_total_classes),
            "num_neg_samples": self._num_neg_samples,
            "seed": seed,
            "sampler": _SAMPLERS[sampler],
            "is_sparse": bool(is_sparse),
            "remote_prefetch": bool(is_sparse),
        }
        self.weight = self.create_parameter([num_total_classes, dim], param_attr, dtype)
        self.bias = self.create_parameter([num_total_classes, 1], bias_attr, dtype, is_bias=True) if bias_attr else None

    def forward(self, input: Any, label: Any, sample_weight: Any = None) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        check_variable_and_dtype(label, "label", INDICES, self._full_name)
        inputs: dict[str, Any] = {"Input": [input], "Label": [label], "Weight": [self.weight], **self._tables}
        if self.bias is not None:
            inputs["Bias"] = [self.bias]
        weight = sample_weight if sample_weight is not None else self._sample_weight
        if weight is not None:
            inputs["SampleWeight"] = [weight]
        helper = self._helper
        cost, logits = (helper.create_variable_for_type_inference(input.dtype) for _ in range(2))
        samples = helper.create_variable_for_type_inference(label.dtype, stop_gradient=True)
        outputs = {"Cost": [cost], "SampleLogits": [logits], "SampleLabels": [samples]}
        helper.append_op(type="nce", inputs=inputs, outputs=outputs, attrs=self._attributes)
        return cost / (self._num_neg_samples + 1)


class TreeConv(Layer):
    """Convolution over trees (Mou et al., 2016, arXiv:1409.5718).

    Args:
        feature_size: features of a node; output_size: of the result.
        max_depth: of the subtrees that a node sees.
        bias_attr: as in Fluid 1.8.5 there is a bias [num_filters] only when this is given.
        name: accepted, without meaning.

    forward(nodes_vector [batch, nodes, feature_size], edge_set int32 [batch, edges, 2])
    -> [batch, nodes, output_size, num_filters].
    """

    def __init__(
        self, feature_size: int, output_size: int, num_filters: int = 1, max_depth: int = 2, act: Any = "tanh",
        param_attr: Any = None, bias_attr: Any = None, name: str | None = None, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self._max_depth, self._act, self._dtype = max_depth, act, dtype
        self.weight = self.create_parameter([feature_size, 3, output_size, num_filters], param_attr, dtype)
        self.bias = self.create_parameter([num_filters], bias_attr, dtype, is_bias=True) if bias_attr else None

    def forward(self, nodes_vector: Any, edge_set: Any) -> Any:
        check_variable_and_dtype(nodes_vector, "nodes_vector", FLOATS, self._full_name)
        check_variable_and_dtype(edge_set, "edge_set", INDICES, self._full_name)
        inputs = {"NodesVector": [nodes_vector], "EdgeSet": [edge_set], "Filter": [self.weight]}
        out = self._helper.run("tree_conv", inputs, {"max_depth": self._max_depth}, self._dtype)
        return self._helper.append_activation(self._helper.add_bias(out, self.bias, 3), act=self._act)


class _OverSequences(Layer):
    """A Layer of Programs only: its parameters are made at the first call, when the input's width is known."""

    def __init__(self, name_scope: str, instead: str) -> None:
        if mode.in_dygraph_mode():
            raise NotSupportedError(
                f"{type(self).__name__} does not exist in dygraph mode; use fluid.layers.{instead} in a Program"
            )
        super().__init__(name_scope)
        self.weight: Any = None
        self.bias: Any = None


class RowConv(_OverSequences):
    """Each row becomes a weighted sum of itself and the next rows: fluid.layers.row_conv as an object of Programs.

    Fluid 1.8.5 refuses this layer in dygraph mode, as it works on sequences; so does this one (NotSupportedError).

    Args:
        name_scope: parameters are named after it.
        future_context_size: how many of the next rows count.

    forward(input [rows, d], lod_level 1) -> the same shape.
    """

    def __init__(self, name_scope: str, future_context_size: int, param_attr: Any = None, act: Any = None) -> None:
        super().__init__(name_scope, "row_conv")
        self._future_context_size, self._param_attr, self._act = future_context_size, param_attr, act

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        if self.weight is None:
            shape = [self._future_context_size + 1, input.shape[-1]]
            self.weight = self.create_parameter(shape, self._param_attr, input.dtype)
        out = self._helper.run("row_conv", {"X": [input], "Filter": [self.weight]}, None, input.dtype)
        return self._helper.append_activation(out, act=self._act)


class SequenceConv(_OverSequences):
    """Convolution over the rows of each sequence: fluid.layers.sequence_conv as an object of Programs.

    Fluid 1.8.5 refuses this layer in dygraph mode, as it works on sequences; so does this one (NotSupportedError).

    Args:
        name_scope: parameters are named after it.
        num_filters: width of the output; filter_size: rows seen at once; filter_stride: only 1.
        padding: has no meaning (the output always has the input's rows).

    forward(input [rows, d], lod_level 1) -> [rows, num_filters].
    """

    def __init__(
        self, name_scope: str, num_filters: int, filter_size: int = 3, filter_stride: int = 1, padding: Any = None,
        bias_attr: Any = None, param_attr: Any = None, act: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(name_scope, "sequence_conv")
        if filter_stride != 1:
            refuse("SequenceConv", f"filter_stride must be 1, received {filter_stride}")
        self._num_filters, self._filter_size = num_filters, filter_size
        self._bias_attr, self._param_attr, self._act = bias_attr, param_attr, act

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        if self.weight is None:
            shape = [self._filter_size * input.shape[-1], self._num_filters]
            self.weight = self.create_parameter(shape, self._param_attr, input.dtype)
            if self._bias_attr is not False:
                self.bias = self.create_parameter([self._num_filters], self._bias_attr, input.dtype, is_bias=True)
        attrs = {"contextStride": 1, "contextStart": -(self._filter_size // 2), "contextLength": self._filter_size}
        out = self._helper.run("sequence_conv", {"X": [input], "Filter": [self.weight]}, attrs, input.dtype)
        return self._helper.append_activation(self._helper.add_bias(out, self.bias, 1), act=self._act)
