"""Optimizers around optimizers: Recompute, Lookahead, Pipeline."""

from __future__ import annotations

from typing import Any

from millstream.autodiff.backward import append_backward
from millstream.errors import ArgumentError, InvalidProgramError, NotSupportedError
from millstream.fluid.clip import error_clip_callback
from millstream.fluid.layers._build import append
from millstream.fluid.layers.control_flow import Switch
from millstream.fluid.layers.tensor import assign, create_global_var, fill_constant
from millstream.fluid.optimizer.eager import refuse_eager
from millstream.fluid.optimizer.optimizer import Optimizer
from millstream.ir.operator import Operator
from millstream.ir.program import default_startup_program, program_guard
from millstream.ir.variable import Variable

Pairs = list[tuple[Any, Any]]


class RecomputeOptimizer(Optimizer):
    """Trains with `optimizer`, keeping only checkpoints of the forward pass (see append_backward).

    Call ``_set_checkpoints`` with Variables before :meth:`minimize`.
    """

    def __init__(self, optimizer: Any) -> None:
        refuse_eager("RecomputeOptimizer")
        self._optimizer = optimizer
        self._checkpoints: Any = None
        self._learning_rate = optimizer._learning_rate
        self._learning_rate_map = optimizer._learning_rate_map

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def _set_checkpoints(self, checkpoints: Any) -> None:
        """The Variables (or names) to keep."""
        self._checkpoints = checkpoints

    def load(self, stat_dict: Any) -> None:
        """Not possible, as in Fluid: load through the wrapped optimizer."""
        raise NotSupportedError("RecomputeOptimizer.load: load through the wrapped optimizer")

    def backward(
        self, loss: Any, startup_program: Any = None, parameter_list: Any = None, no_grad_set: Any = None,
        callbacks: Any = None,
    ) -> Pairs:  # fmt: skip
        """As of Optimizer; everything but the checkpoints is computed again. InvalidProgramError without checkpoints."""
        if self._checkpoints is None:
            raise InvalidProgramError("RecomputeOptimizer: call _set_checkpoints first")
        self._optimizer._dtype = loss.dtype
        calls = [] if callbacks is None else list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
        startup = default_startup_program() if startup_program is None else startup_program
        with program_guard(loss.block.program, startup):
            return append_backward(
                loss,
                parameter_list or self._optimizer._parameter_list,
                no_grad_set,
                [*calls, error_clip_callback],
                checkpoints=self._checkpoints,
            )

    def apply_gradients(self, params_grads: Pairs) -> list[Operator]:
        """As of the wrapped optimizer."""
        return self._optimizer.apply_gradients(params_grads)

    def apply_optimize(self, loss: Any, startup_program: Any, params_grads: Pairs) -> list[Operator]:
        """As of the wrapped optimizer."""
        apply = getattr(self._optimizer, "apply_optimize", None)
        if apply is not None:
            return apply(loss, startup_program, params_grads)
        startup = default_startup_program() if startup_program is None else startup_program
        with program_guard(loss.block.program, startup):
            return self._optimizer.apply_gradients(params_grads)

    def minimize(
        self, loss: Any, startup_program: Any = None, parameter_list: Any = None, no_grad_set: Any = None,
        *, grad_clip: Any = None,
    ) -> tuple[list[Operator], Pairs]:  # fmt: skip
        """As of Optimizer."""
        if not isinstance(loss, Variable):
            raise ArgumentError(f"RecomputeOptimizer: the loss must be a Variable, received {type(loss).__name__}")
        if grad_clip is not None:
            self._optimizer._grad_clip = grad_clip
        params_grads = self.backward(loss, startup_program, parameter_list, no_grad_set)
        return self.apply_optimize(loss, startup_program, params_grads), params_grads

    def current_step_lr(self) -> float:
        """As of the wrapped optimizer."""
        return self._optimizer.current_step_lr()

    def state_dict(self) -> dict[str, Any]:
        """As of the wrapped optimizer."""
        return self._optimizer.state_dict()

    def set_dict(self, state_dict: dict[str, Any]) -> None:
        """As of the wrapped optimizer."""
        self._optimizer.set_dict(state_dict)

    def clear_gradients(self) -> None:
        """As of the wrapped optimizer."""
        self._optimizer.clear_gradients()

    def get_opti_var_name_list(self) -> list[str]:
        """As of the wrapped optimizer."""
        return self._optimizer.get_opti_var_name_list()


class LookaheadOptimizer:
    """Zhang, Lucas, Hinton, Ba, 2019 (arXiv:1907.08610): every k steps slow += alpha * (fast - slow), fast = slow.

    Args:
        inner_optimizer: moves the fast parameters.
        alpha: in [0, 1].
        k: a positive int.
    """

    def __init__(self, inner_optimizer: Any, alpha: float = 0.5, k: int = 5) -> None:
        refuse_eager("LookaheadOptimizer")
        if inner_optimizer is None:
            raise InvalidProgramError("LookaheadOptimizer: inner_optimizer must be an optimizer, received None")
        if not 0.0 <= alpha <= 1.0:
            raise InvalidProgramError(f"LookaheadOptimizer: alpha must lie in [0, 1], received {alpha}")
        if not isinstance(k, int) or k <= 0:
            raise InvalidProgramError(f"LookaheadOptimizer: k must be a positive int, received {k!r}")
        self.inner_optimizer = inner_optimizer
        self.alpha = alpha
        self.k = k
        self.type = "lookahead"

    def minimize(self, loss: Any, startup_program: Any = None) -> Any:
        """Append the inner optimizer's minimize and the slow parameters' step; returns what the former returned."""
        result = self.inner_optimizer.minimize(loss, startup_program=startup_program)
        program = loss.block.program
        block = program.global_block()
        startup = default_startup_program() if startup_program is None else startup_program
        pairs = []
        for fast in block.all_parameters():
            slow = block.create_var(name=fast.name + "@SLOW", shape=fast.shape, dtype=fast.dtype, persistable=True)
            pairs.append((fast, slow))
        start_block = startup.global_block()
        for fast, slow in pairs:
            first = start_block.var(fast.name)
            copy = start_block.create_var(name=slow.name, shape=slow.shape, dtype=slow.dtype, persistable=True)
            start_block.append_op("assign", {"X": first}, {"Out": copy})
        with program_guard(program, startup), program._optimized_guard([]):
            self._append_lookahead(block, pairs)
        return result

    def _append_lookahead(self, block: Any, pairs: Pairs) -> None:
        k = create_global_var([1], int(self.k), "int32", persistable=True, name="lookahead_k")
        alpha = create_global_var([1], float(self.alpha), "float32", persistable=True, name="lookahead_alpha")
        step = create_global_var([1], 0, "int32", persistable=True, name="lookahead_step")
        block.append_op("increment", {"X": step}, {"Out": step}, {"step": 1.0})
        zero = fill_constant([1], "float32", 0.0)
        one = fill_constant([1], "float32", 1.0)
        left = _both("elementwise_mod", step, k)
        with Switch() as switch:
            with switch.case(left == zero):
                for fast, slow in pairs:
                    mixed = _both(
                        "elementwise_add",
                        _both("elementwise_mul", fast, alpha),
                        _both("elementwise_mul", slow, _both("elementwise_sub", one, alpha)),
                    )
                    assign(input=mixed, output=slow)
                    assign(input=mixed, output=fast)
            with switch.default():
                pass


def _both(op_type: str, x: Any, y: Any) -> Any:
    return append(op_type, op_type, {"X": x, "Y": y}, {"axis": -1}, dtype=x.dtype)


class PipelineOptimizer:
    """Trains with `optimizer`; a trainer that runs sections of the Program at once finds the cuts in the Program.

    The Program computes what it would without pipeline: one process runs the sections one after the other.

    Args:
        cut_list: lists of Variables at which the Program is cut into sections.
        place_list, concurrency_list: place and number of workers of each section.
        queue_size: scopes in flight between sections.
        sync_steps: steps between synchronisations of workers; 1 only (several would need several processes).
        start_cpu_core_id: first core to bind; kept for the trainer.
    """

    def __init__(
        self, optimizer: Any, cut_list: Any = None, place_list: Any = None, concurrency_list: Any = None,
        queue_size: int = 30, sync_steps: int = 1, start_cpu_core_id: int = 0,
    ) -> None:  # fmt: skip
        refuse_eager("PipelineOptimizer")
        if optimizer is None:
            raise InvalidProgramError("PipelineOptimizer: optimizer must be an optimizer, received None")
        self._optimizer = optimizer
        self._cut_list = cut_list
        self._place_list = place_list
        self._concurrency_list = concurrency_list
        self._queue_size = queue_size
        self._sync_steps = sync_steps
        self._start_cpu_core_id = start_cpu_core_id

    def minimize(
        self, loss: Any, startup_program: Any = None, parameter_list: Any = None, no_grad_set: Any = None
    ) -> Any:
        """The inner optimizer's minimize; the sections are noted in the Program."""
        result = self._optimizer.minimize(loss, startup_program, parameter_list, no_grad_set)
        cuts = [[v.name if isinstance(v, Variable) else v for v in cut] for cut in self._cut_list or ()]
        sections = 2 * len(cuts) - 1 if len(cuts) > 1 else len(cuts)
        for given, what in ((self._place_list, "place_list"), (self._concurrency_list, "concurrency_list")):
            if given is not None and cuts and len(given) not in (sections, len(cuts), len(cuts) + 1):
                raise InvalidProgramError(
                    f"PipelineOptimizer: {what} has {len(given)} entries for the {sections} sections of cut_list"
                )
        loss.block.program._options["pipeline"] = {
            "trainer": "PipelineTrainer",
            "device_worker": "Section",
            "cut_list": cuts,
            "place_list": self._place_list,
            "concurrency_list": self._concurrency_list,
            "queue_size": self._queue_size,
            "start_cpu_core_id": self._start_cpu_core_id,
            "sync_steps": self._sync_steps,
        }
        return result
