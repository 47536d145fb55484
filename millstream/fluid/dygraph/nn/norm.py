"""Normalisation and Dropout."""

from __future__ import annotations

import math
from typing import Any

from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.initializer import Constant, Normal
from millstream.fluid.layers._check import FLOATS, check_choice, check_variable_and_dtype, refuse, refuse_type
from millstream.fluid.param_attr import ParamAttr
from millstream.ir.mode import in_dygraph_mode
from millstream.ir.program import default_main_program
from millstream.ir.types import VarType


class BatchNorm(Layer):
    """Batch normalisation (Ioffe and Szegedy, 2015, arXiv:1502.03167) of [N, C, ...], with moving statistics.

    Args:
        num_channels: C.
        act: activation.
        is_test: use the moving statistics where the layer is part of a Program; in imperative mode train() and eval()
            decide, as in 1.8.5.
        momentum: of the moving statistics.
        param_attr, bias_attr: of scale and shift [C].
        data_layout: "NCHW" or "NHWC".
        in_place: write into the input, as an operator of a Program would; without effect on eager values.
        moving_mean_name, moving_variance_name: names of `_mean` and `_variance`.
        do_model_average_for_mean_and_var: ModelAverage averages them too.
        use_global_stats: normalise with the moving statistics also in training.
        trainable_statistics: eval() leaves the batch's statistics in use.
    """

    def __init__(
        self, num_channels: int, act: Any = None, is_test: bool = False, momentum: Any = 0.9, epsilon: float = 1e-05,
        param_attr: Any = None, bias_attr: Any = None, dtype: Any = "float32", data_layout: str = "NCHW",
        in_place: bool = False, moving_mean_name: str | None = None, moving_variance_name: str | None = None,
        do_model_average_for_mean_and_var: bool = True, use_global_stats: bool = False,
        trainable_statistics: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if bias_attr is False or param_attr is False:
            refuse_type("BatchNorm", "'param_attr' and 'bias_attr' must not be False: the layer has scale and shift")
        check_choice(data_layout, "data_layout", ("NCHW", "NHWC"), "BatchNorm")
        self._act, self._is_test, self._momentum, self._epsilon = act, bool(is_test), momentum, epsilon
        self._data_layout, self._in_place = data_layout, bool(in_place)
        self._use_global_stats, self._trainable_statistics = bool(use_global_stats), bool(trainable_statistics)
        self._dtype = kept = "float32" if dtype == "float16" else dtype
        shape = [num_channels]
        self.weight = self.create_parameter(shape, param_attr, kept, default_initializer=Constant(1.0))
        self.bias = self.create_parameter(shape, bias_attr, kept, is_bias=True)
        for attribute, name, fill in (("_mean", moving_mean_name, 0.0), ("_variance", moving_variance_name, 1.0)):
            attr = ParamAttr(
                name=name,
                initializer=Constant(fill),
                trainable=False,
                do_model_average=do_model_average_for_mean_and_var,
            )
            moving = self.create_parameter(shape, attr, kept)
            moving.stop_gradient = True
            setattr(self, attribute, moving)

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        helper = self._helper
        mean, variance = self._mean, self._variance
        inputs = {"X": [input], "Scale": [self.weight], "Bias": [self.bias], "Mean": [mean], "Variance": [variance]}
        attrs = {
            "epsilon": self._epsilon,
            "is_test": not self.training or (self._is_test and not in_dygraph_mode()),
            "data_layout": self._data_layout,
            "use_global_stats": self._use_global_stats,
            "trainable_statistics": self._trainable_statistics,
            "fuse_with_relu": False,
        }
        if hasattr(self._momentum, "dtype"):
            inputs["MomentumTensor"] = [self._momentum]
        else:
            attrs["momentum"] = self._momentum
        saved_mean = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        saved_variance = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        out = helper.create_variable_for_type_inference(input.dtype)
        outputs = {
            "Y": [out],
            "MeanOut": [mean],
            "VarianceOut": [variance],
            "SavedMean": [saved_mean],
            "SavedVariance": [saved_variance],
        }
        helper.append_op(type="batch_norm", inputs=inputs, outputs=outputs, attrs=attrs)
        return helper.append_activation(out, act=self._act)


class LayerNorm(Layer):
    """Each sample's last dimensions normalised (Ba, Kiros, Hinton, 2016, arXiv:1607.06450).

    Args:
        normalized_shape: int or list: the sizes of those dimensions.
        scale, shift: whether there is a weight, a bias, both of [product of normalized_shape].
    """

    def __init__(
        self, normalized_shape: Any, scale: bool = True, shift: bool = True, epsilon: float = 1e-05, param_attr: Any = None,
        bias_attr: Any = None, act: Any = None, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        sizes = [int(normalized_shape)] if hasattr(normalized_shape, "__index__") else [int(d) for d in normalized_shape]
        if not sizes or min(sizes) <= 0:
            refuse("LayerNorm", f"'normalized_shape' must be positive sizes, received {normalized_shape!r}")
        self._normalized_shape, self._epsilon, self._act, self._dtype = sizes, epsilon, act, dtype
        length = [math.prod(sizes)]
        one = Constant(1.0)
        self.weight = self.create_parameter(length, param_attr, dtype, default_initializer=one) if scale else None
        self.bias = self.create_parameter(length, bias_attr, dtype, is_bias=True) if shift else None

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        begin = len(input.shape) - len(self._normalized_shape)
        if begin < 1 or list(input.shape[begin:]) != self._normalized_shape:
            refuse(
                self._full_name,
                f"the last dimensions of 'input' must be {self._normalized_shape}, after at least one other; "
                f"received shape {list(input.shape)}",
            )
        inputs = {"X": [input]}
        if self.weight is not None:
            inputs["Scale"] = [self.weight]
        if self.bias is not None:
            inputs["Bias"] = [self.bias]
        attrs = {"epsilon": self._epsilon, "begin_norm_axis": begin}
        helper = self._helper
        mean = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        variance = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        out = helper.create_variable_for_type_inference(input.dtype)
        outputs = {"Y": [out], "Mean": [mean], "Variance": [variance]}
        helper.append_op(type="layer_norm", inputs=inputs, outputs=outputs, attrs=attrs)
        return helper.append_activation(out, act=self._act)


class GroupNorm(Layer):
    """Groups of channels normalised in each sample (Wu and He, 2018, arXiv:1803.08494).

    As in Fluid 1.8.5 there is a weight (bias) only when `param_attr` (`bias_attr`) is given: None means none.
    """

    def __init__(
        self, channels: int, groups: int, epsilon: float = 1e-05, param_attr: Any = None, bias_attr: Any = None,
        act: Any = None, data_layout: str = "NCHW", dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        if data_layout != "NCHW":
            refuse("GroupNorm", f"'data_layout' must be 'NCHW', received {data_layout!r}")
        if groups <= 0 or channels % groups:
            refuse("GroupNorm", f"'channels' must be a multiple of 'groups', received {channels} and {groups}")
        self._channels, self._groups, self._epsilon, self._act, self._dtype = channels, groups, epsilon, act, dtype
        one = Constant(1.0)
        self.weight = self.create_parameter([channels], param_attr, dtype, default_initializer=one) if param_attr else None
        self.bias = self.create_parameter([channels], bias_attr, dtype, is_bias=True) if bias_attr else None

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        inputs = {"X": [input]}
        if self.weight is not None:
            inputs["Scale"] = [self.weight]
        if self.bias is not None:
            inputs["Bias"] = [self.bias]
        helper = self._helper
        mean = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        variance = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        out = helper.create_variable_for_type_inference(input.dtype)
        outputs = {"Y": [out], "Mean": [mean], "Variance": [variance]}
        attrs = {"epsilon": self._epsilon, "groups": self._groups}
        helper.append_op(type="group_norm", inputs=inputs, outputs=outputs, attrs=attrs)
        return helper.append_activation(out, act=self._act)


class InstanceNorm(Layer):
    """Each channel of each sample normalised (Ulyanov, Vedaldi, Lempitsky, 2016, arXiv:1607.08022): `scale`, `bias` [C]."""

    def __init__(
        self, num_channels: int, epsilon: float = 1e-05, param_attr: Any = None, bias_attr: Any = None,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        if (param_attr is False) != (bias_attr is False):
            refuse_type("InstanceNorm", "'param_attr' and 'bias_attr' must be False together")
        self._epsilon, self._dtype = epsilon, dtype
        self.scale = self.create_parameter([num_channels], param_attr, dtype, default_initializer=Constant(1.0))
        self.bias = self.create_parameter([num_channels], bias_attr, dtype, is_bias=True)

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        inputs = {"X": [input]}
        if self.scale is not None:
            inputs |= {"Scale": [self.scale], "Bias": [self.bias]}
        helper = self._helper
        mean = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        variance = helper.create_variable_for_type_inference(self._dtype, stop_gradient=True)
        out = helper.create_variable_for_type_inference(input.dtype)
        outputs = {"Y": [out], "SavedMean": [mean], "SavedVariance": [variance]}
        helper.append_op(type="instance_norm", inputs=inputs, outputs=outputs, attrs={"epsilon": self._epsilon})
        return out


class SpectralNorm(Layer):
    """A weight divided by its largest singular value (Miyato et al., 2018, arXiv:1802.05957).

    Args:
        weight_shape: of the weights that forward() takes.
        dim: the dimension that becomes the rows of the matrix.
        power_iters: steps of power iteration from the vectors `weight_u`, `weight_v`.
    """

    def __init__(
        self, weight_shape: Any, dim: int = 0, power_iters: int = 1, eps: float = 1e-12, dtype: Any = "float32"
    ) -> None:
        super().__init__()
        shape = [int(d) for d in weight_shape]
        if not -len(shape) <= dim < len(shape):
            refuse("SpectralNorm", f"'dim' must be a dimension of {shape}, received {dim}")
        self._attributes = {"dim": dim, "power_iters": power_iters, "eps": eps}
        self._dtype = dtype
        for attribute, size in (("weight_u", shape[dim]), ("weight_v", math.prod(shape) // shape[dim])):
            vector = self.create_parameter([size], ParamAttr(), dtype, default_initializer=Normal(0.0, 1.0))
            vector.stop_gradient = True
            setattr(self, attribute, vector)

    def forward(self, weight: Any) -> Any:
        check_variable_and_dtype(weight, "weight", FLOATS, self._full_name)
        inputs = {"Weight": [weight], "U": [self.weight_u], "V": [self.weight_v]}
        return self._helper.run("spectral_norm", inputs, self._attributes, weight.dtype)


class Dropout(Layer):
    """Zero each element with probability `p` in training (Srivastava et al., 2014).

    Args:
        seed: fixes the draws.
        dropout_implementation: "downgrade_in_infer": evaluation multiplies by 1 - p; "upscale_in_train": training
            divides by 1 - p and evaluation changes nothing.
        is_test: evaluate where the layer is part of a Program; in imperative mode train() and eval() decide, as in 1.8.5.
    """

    def __init__(
        self, p: float = 0.5, seed: int | None = None, dropout_implementation: str = "downgrade_in_infer",
        is_test: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 0 <= p <= 1:
            refuse("Dropout", f"'p' must be between 0 and 1, received {p}")
        choices = ("downgrade_in_infer", "upscale_in_train")
        check_choice(dropout_implementation, "dropout_implementation", choices, "Dropout")
        self._p, self._seed, self._implementation, self._is_test = float(p), seed, dropout_implementation, bool(is_test)

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        seed = self._seed if self._seed is not None else default_main_program().random_seed
        attrs = {
            "dropout_prob": self._p,
            "is_test": not self.training or (self._is_test and not in_dygraph_mode()),
            "fix_seed": self._seed is not None or seed != 0,
            "seed": seed or 0,
            "dropout_implementation": self._implementation,
        }
        out = self._helper.create_variable_for_type_inference(input.dtype)
        mask = self._helper.create_variable_for_type_inference(VarType.UINT8, stop_gradient=True)
        self._helper.append_op(type="dropout", inputs={"X": [input]}, outputs={"Out": [out], "Mask": [mask]}, attrs=attrs)
        return out
