"""Convolutions and pooling."""

from __future__ import annotations

import math
from typing import Any

from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.initializer import Normal
from millstream.fluid.layers._build import int_list
from millstream.fluid.layers._check import FLOATS, check_choice, check_variable_and_dtype, refuse, refuse_type
from millstream.fluid.layers.nn import _padding


class _Conv(Layer):
    """What the four convolutions share.

    Args:
        num_channels: channels of the input.
        num_filters: channels of the output.
        filter_size, stride, padding, dilation: one int, or one for each spatial dimension; padding also "SAME", "VALID".
        groups: output channels of one group see the input channels of that group only.
        param_attr: of the filter; bias_attr: of the bias [num_filters], False: none.
        use_cudnn: without meaning on a CPU, but False with groups == channels makes a ``depthwise_conv2d`` operator.
        act: activation.
    """

    _n = 2
    _transposed = False

    def __init__(
        self,
        num_channels: int,
        num_filters: int,
        filter_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        groups: int | None,
        param_attr: Any,
        bias_attr: Any,
        use_cudnn: bool,
        act: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        who, n = type(self).__name__, self._n
        if param_attr is False:
            refuse_type(who, "'param_attr' must not be False: the layer needs its filter")
        if not isinstance(use_cudnn, bool):
            refuse_type(who, f"'use_cudnn' must be a bool, received {use_cudnn!r}")
        groups = 1 if groups is None else int(groups)
        for what, value in (("num_channels", num_channels), ("num_filters", num_filters)):
            if not isinstance(value, int) or value <= 0 or groups <= 0 or value % groups:
                refuse(who, f"'{what}' must be a positive multiple of groups={groups}, received {value!r}")
        self._groups, self._act, self._dtype, self._use_cudnn = groups, act, dtype, use_cudnn
        self._num_channels, self._num_filters = num_channels, num_filters
        self._filter_size = int_list(filter_size, n, "filter_size", who)
        self._stride = int_list(stride, n, "stride", who)
        self._dilation = int_list(dilation, n, "dilation", who)
        self._padding, self._padding_algorithm = _padding.parse(padding, n, _padding.FORMATS[n][0], who)
        self._op_type = self._choose_operator()
        kernel = self._filter_size
        if self._transposed:
            shape, init = [num_channels, num_filters // groups, *kernel], None
        else:
            shape = [num_filters, num_channels // groups, *kernel]
            init = Normal(0.0, math.sqrt(2.0 / (math.prod(kernel) * num_channels)), 0)
        self.weight = self.create_parameter(shape, param_attr, dtype, default_initializer=init)
        self.bias = self.create_parameter([num_filters], bias_attr, dtype, is_bias=True)

    def _choose_operator(self) -> str:
        depthwise = self._n == 2 and self._groups == self._num_channels and not self._use_cudnn
        depthwise = depthwise and self._num_filters % self._num_channels == 0
        depthwise = depthwise and (not self._transposed or self._groups != 1)
        return f"{'depthwise_' if depthwise else ''}conv{self._n}d{'_transpose' if self._transposed else ''}"

    def _attrs(self) -> dict[str, Any]:
        return {
            "strides": self._stride,
            "paddings": self._padding,
            "dilations": self._dilation,
            "groups": self._groups,
            "padding_algorithm": self._padding_algorithm,
        }

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", FLOATS, self._full_name)
        inputs = {"Input": [input], "Filter": [self.weight]}
        out = self._helper.run(self._op_type, inputs, self._attrs(), input.dtype, "Output")
        return self._helper.append_activation(self._helper.add_bias(out, self._added_bias(), 1), act=self._act)

    def _added_bias(self) -> Any:
        return self.bias


class Conv2D(_Conv):
    """act(input * filter + bias): [N, C, H, W] -> [N, num_filters, H', W']."""

    def __init__(
        self, num_channels: int, num_filters: int, filter_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int | None = None, param_attr: Any = None, bias_attr: Any = None, use_cudnn: bool = True, act: Any = None,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            num_channels, num_filters, filter_size, stride, padding, dilation, groups, param_attr, bias_attr, use_cudnn,
            act, dtype,
        )  # fmt: skip


class Conv3D(_Conv):
    """act(input * filter + bias): [N, C, D, H, W] -> [N, num_filters, D', H', W']."""

    _n = 3

    def __init__(
        self, num_channels: int, num_filters: int, filter_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int | None = None, param_attr: Any = None, bias_attr: Any = None, use_cudnn: bool = True, act: Any = None,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            num_channels, num_filters, filter_size, stride, padding, dilation, groups, param_attr, bias_attr, use_cudnn,
            act, dtype,
        )  # fmt: skip


class Conv2DTranspose(_Conv):
    """The gradient of a convolution as a layer; the filter is [num_channels, num_filters / groups, h, w].

    Args:
        output_size: [H', W'], one of the sizes that the stride leaves open.
    """

    _transposed = True

    def __init__(
        self, num_channels: int, num_filters: int, filter_size: Any, output_size: Any = None, padding: Any = 0,
        stride: Any = 1, dilation: Any = 1, groups: int | None = None, param_attr: Any = None, bias_attr: Any = None,
        use_cudnn: bool = True, act: Any = None, dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            num_channels, num_filters, filter_size, stride, padding, dilation, groups, param_attr, bias_attr, use_cudnn,
            act, dtype,
        )  # fmt: skip
        self._output_size = [] if output_size is None else int_list(output_size, 2, "output_size", "Conv2DTranspose")

    def _attrs(self) -> dict[str, Any]:
        return super()._attrs() | {"output_size": self._output_size}


class Conv3DTranspose(_Conv):
    """:class:`Conv2DTranspose` over three dimensions.

    As in Fluid 1.8.5 the bias is added only when `bias_attr` is given; with None it is a Parameter without effect.
    """

    _n = 3
    _transposed = True

    def __init__(
        self, num_channels: int, num_filters: int, filter_size: Any, padding: Any = 0, stride: Any = 1, dilation: Any = 1,
        groups: int | None = None, param_attr: Any = None, bias_attr: Any = None, use_cudnn: bool = True, act: Any = None,
        dtype: Any = "float32",
    ) -> None:  # fmt: skip
        super().__init__(
            num_channels, num_filters, filter_size, stride, padding, dilation, groups, param_attr, bias_attr, use_cudnn,
            act, dtype,
        )  # fmt: skip
        self._bias_given = bool(bias_attr)

    def _added_bias(self) -> Any:
        return self.bias if self._bias_given else None


class Pool2D(Layer):
    """Maximum or mean of each window of [N, C, H, W].

    Args:
        pool_size: int or [h, w].
        pool_type: "max" or "avg".
        global_pooling: one window over everything; `pool_size` and `pool_padding` do not matter.
        use_cudnn: accepted, without meaning.
        ceil_mode: round the number of windows up.
        exclusive: padding does not count in a mean.
    """

    def __init__(
        self, pool_size: Any = -1, pool_type: str = "max", pool_stride: Any = 1, pool_padding: Any = 0,
        global_pooling: bool = False, use_cudnn: bool = True, ceil_mode: bool = False, exclusive: bool = True,
    ) -> None:  # fmt: skip
        check_choice(pool_type, "pool_type", ("max", "avg"), "Pool2D")
        if not global_pooling and pool_size == -1:
            refuse("Pool2D", "without global_pooling 'pool_size' must be given, received -1")
        if not isinstance(use_cudnn, bool):
            refuse_type("Pool2D", f"'use_cudnn' must be a bool, received {use_cudnn!r}")
        super().__init__()
        paddings, algorithm = _padding.parse(pool_padding, 2, "NCHW", "Pool2D", "pool_padding")
        self._attributes = {
            "pooling_type": pool_type,
            "ksize": int_list(pool_size, 2, "pool_size", "Pool2D"),
            "strides": int_list(pool_stride, 2, "pool_stride", "Pool2D"),
            "paddings": paddings,
            "padding_algorithm": algorithm,
            "global_pooling": bool(global_pooling),
            "ceil_mode": bool(ceil_mode),
            "exclusive": bool(exclusive),
        }

    def forward(self, input: Any) -> Any:
        check_variable_and_dtype(input, "input", (*FLOATS, "int8", "uint8"), self._full_name)
        return self._helper.run("pool2d", {"X": [input]}, self._attributes, input.dtype)
