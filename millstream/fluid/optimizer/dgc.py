"""DGCMomentumOptimizer: momentum with compressed gradients."""

from __future__ import annotations

from typing import Any

from millstream.fluid.clip import GradientClipByNorm
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.layers.tensor import create_global_var
from millstream.fluid.optimizer.descent import MomentumOptimizer
from millstream.fluid.optimizer.eager import refuse_eager
from millstream.fluid.optimizer.optimizer import need
from millstream.fluid.regularizer import L1DecayRegularizer, L2DecayRegularizer
from millstream.ir import names
from millstream.ir.operator import ROLE_BACKWARD, ROLE_OPTIMIZE, Operator
from millstream.ir.program import default_main_program
from millstream.ir.types import VarType

_SMALLEST = 16384  # parameters with fewer elements are sent whole


class DGCMomentumOptimizer(MomentumOptimizer):
    """Deep gradient compression (Lin et al., 2017, arXiv:1712.01887).

    From step `rampup_begin_step` on only the largest elements of each gradient are used, the rest accumulates
    locally; momentum is then applied before the choice. Before that step, and for parameters with fewer than 16,384
    elements or another type than float32, this is Momentum. Unlike Fluid's it also runs on the CPU and with one
    trainer.

    Args:
        rampup_begin_step: first step with compression.
        rampup_step: number of steps over which `sparsity` is walked through.
        sparsity: share of elements held back, in each part of the ramp; the last one stays.
        num_trainers: number of trainers; needed with grad_clip.
        grad_clip: GradientClipByNorm only; each trainer clips to clip_norm / sqrt(num_trainers).
    """

    def __init__(
        self, learning_rate: Any, momentum: float, rampup_begin_step: int, rampup_step: int = 1,
        sparsity: Any = [0.999], parameter_list: Any = None, use_nesterov: bool = False,
        num_trainers: int | None = None, regularization: Any = None, grad_clip: Any = None, name: str | None = None,
    ) -> None:  # fmt: skip
        refuse_eager("DGCMomentumOptimizer")
        need("DGCMomentum", learning_rate=learning_rate, momentum=momentum, rampup_begin_step=rampup_begin_step)
        super().__init__(learning_rate, momentum, parameter_list, use_nesterov, regularization, grad_clip, name)
        self.type = "dgc_momentum"
        if rampup_begin_step < 0:
            raise ValueError(f"DGCMomentum: rampup_begin_step must not be negative, received {rampup_begin_step}")
        if not sparsity or any(not 0 <= s < 1 for s in sparsity):
            raise ValueError(f"DGCMomentum: sparsity takes numbers in [0, 1), received {sparsity}")
        self._rampup_begin_step, self._rampup_step, self._sparsity = rampup_begin_step, rampup_step, list(sparsity)
        self._num_trainers = num_trainers
        self._dgc_clip_norm = self._clip_norm_of_each(grad_clip, num_trainers)
        self._regular_type, self._regular_coeff = _decay_of(regularization)
        self._compressed: set[str] = set()
        self._global_step_var: Any = None
        self._nranks_var: Any = None

    @staticmethod
    def _clip_norm_of_each(grad_clip: Any, num_trainers: int | None) -> float | None:
        if grad_clip is None:
            return None
        if not isinstance(grad_clip, GradientClipByNorm):
            raise TypeError(f"DGCMomentum: grad_clip must be GradientClipByNorm, received {type(grad_clip).__name__}")
        if not isinstance(num_trainers, int) or num_trainers <= 0:
            raise ValueError(f"DGCMomentum: grad_clip needs num_trainers, a positive int; received {num_trainers!r}")
        return grad_clip.clip_norm * num_trainers**-0.5

    def _is_use_dgc(self, param: Any, grad: Any) -> bool:
        size = 1
        for d in param.shape:
            size *= d
        return (
            grad is not None
            and size >= _SMALLEST
            and grad.type is VarType.LOD_TENSOR
            and param.type is VarType.LOD_TENSOR
            and param.dtype is VarType.FP32
        )

    def apply_gradients(self, params_grads: Any) -> list[Operator]:
        """As of Optimizer; the compressed gradients are clipped and decayed inside the compression."""
        pairs = sorted(params_grads, key=lambda pair: pair[0].name)
        compressed = [(p, g) for p, g in pairs if self._is_use_dgc(p, g)]
        if not compressed:
            return super().apply_gradients(pairs)
        self._compressed = {p.name for p, _ in compressed}
        self._append_dgc_ops(compressed)
        rest = [(p, g) for p, g in pairs if p.name not in self._compressed]
        first = self._create_optimization_pass(compressed)
        return first + (super().apply_gradients(rest) if rest else [])

    def _counter(self) -> Any:
        """The step as float32, 0 in the first run."""
        var = create_global_var([1], -1.0, "float32", persistable=True, force_cpu=True, name=names.generate("@DGC_COUNTER@"))
        op = default_main_program().global_block()._prepend_op(
            type="increment", inputs={"X": [var]}, outputs={"Out": [var]}, attrs={"step": 1.0}
        )
        op._set_attr("op_role", ROLE_OPTIMIZE)
        return var

    def _append_dgc_ops(self, pairs: Any) -> None:
        program = default_main_program()
        block = program.current_block()
        if self._global_step_var is None:
            self._global_step_var = self._counter()
            self._nranks_var = create_global_var(
                [1], float(self._num_trainers or 1), "float32", persistable=True, force_cpu=True,
                name=names.generate("@DGC_NRANKS@"),
            )  # fmt: skip
        self.helper = LayerHelper(type(self).__name__)
        for param, grad in pairs:
            with program._role_guard(ROLE_BACKWARD, [param.name, grad.name]):
                self._compress(block, param, grad)

    def _compress(self, block: Any, param: Any, grad: Any) -> None:
        if self._dgc_clip_norm is not None:
            block.append_op(
                "dgc_clip_by_norm",
                {"X": grad, "current_step": self._global_step_var},
                {"Out": grad},
                {"max_norm": self._dgc_clip_norm, "rampup_begin_step": float(self._rampup_begin_step)},
            )
        u = self._add_accumulator("_dgc_u_", param)
        v = self._add_accumulator("_dgc_v_", param)
        k, encoded, gather = (
            block.create_var(name=names.generate(f"{param.name}_dgc_{what}"), dtype=param.dtype)
            for what in ("k", "encoded", "gather")
        )
        regular_type, coeff = self._regular_type, self._regular_coeff
        if param.regularizer is not None:
            regular_type, coeff = _decay_of(param.regularizer)
        block.append_op(
            "dgc",
            {
                "U": u,
                "V": v,
                "Grad": grad,
                "Param": param,
                "current_step": self._global_step_var,
                "nranks": self._nranks_var,
            },
            {"U_out": u, "V_out": v, "EncodeGrad": encoded, "Grad_out": grad, "k": k, "GatherBuff": gather},
            {
                "m": self._momentum,
                "use_nesterov": self._use_nesterov,
                "sparsity": self._sparsity,
                "rampup_begin_step": float(self._rampup_begin_step),
                "rampup_step": float(self._rampup_step),
                "regular_coeff": coeff,
                "regular_type": regular_type,
            },
        )

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        param, grad = param_and_grad
        attrs: dict[str, Any] = {"mu": self._momentum, "use_nesterov": self._use_nesterov}
        if param.name not in self._compressed:
            self.type = "momentum"
            try:
                return self._momentum_op(block, param_and_grad, attrs)
            finally:
                self.type = "dgc_momentum"
        velocity = self._get_accumulator(self._velocity_acc_str, param)
        inputs = {
            "Param": param,
            "Grad": grad,
            "Velocity": velocity,
            "LearningRate": self._create_param_lr(param_and_grad),
            "current_step": self._global_step_var,
            "nranks": self._nranks_var,
        }
        outputs = {"ParamOut": param, "VelocityOut": velocity, "Grad_out": grad}
        attrs["rampup_begin_step"] = float(self._rampup_begin_step)
        return block.append_op(type="dgc_momentum", inputs=inputs, outputs=outputs, attrs=attrs)


def _decay_of(regularization: Any) -> tuple[int, float]:
    """(0 none, 1 L1, 2 L2; coefficient) of a regulariser."""
    if regularization is None:
        return 0, 0.0
    if isinstance(regularization, L1DecayRegularizer):
        return 1, regularization._regularization_coeff
    if isinstance(regularization, L2DecayRegularizer):
        return 2, regularization._regularization_coeff
    raise TypeError(f"DGCMomentum: regularization must be L1Decay or L2Decay, received {type(regularization).__name__}")
