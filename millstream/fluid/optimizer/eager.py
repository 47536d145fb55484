"""What optimizers do in dygraph mode: the same updates, run at once on the parameters' present gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from millstream.errors import ArgumentError, NotSupportedError, StateMismatchError
from millstream.fluid.clip import append_gradient_clip_ops
from millstream.fluid.layer_helper import LayerHelper
from millstream.fluid.regularizer import L2DecayRegularizer, append_regularization_ops
from millstream.ir import mode, names

Pairs = list[tuple[Any, Any]]


def is_schedule(rate: Any) -> bool:
    """Whether a learning rate is one of the schedule objects of fluid.dygraph."""
    return hasattr(rate, "create_lr_var")


def refuse_eager(who: str) -> None:
    """NotSupportedError in dygraph mode, for what works on Programs only."""
    if mode.tracer() is not None:
        raise NotSupportedError(f"{who} works on Programs; Fluid has no form of it for dygraph mode")


def need_eager(who: str) -> None:
    """NotSupportedError while Programs are built, for what works in dygraph mode only."""
    if mode.tracer() is None:
        raise NotSupportedError(f"{who} works in dygraph mode only: call it inside `with fluid.dygraph.guard():`")


def check_eager(who: str, rate: Any, parameter_list: Any) -> None:
    """The arguments that dygraph mode needs."""
    if parameter_list is None:
        raise AttributeError(f"{who}: in dygraph mode parameter_list must be given: parameter_list=model.parameters()")
    if not isinstance(rate, float) and not is_schedule(rate):
        raise ArgumentError(
            f"{who}: in dygraph mode learning_rate must be a float or a schedule such as NoamDecay, "
            f"received {type(rate).__name__}: {rate!r}"[:200]
        )


class EagerUpdates:
    """Mixin of Optimizer."""

    _learning_rate: Any
    _parameter_list: Any
    _grad_clip: Any
    _accumulators: Any
    helper: Any
    regularization: Any
    _eager_rate: Any = None  # the variable that the updates read
    _loaded: dict[str, Any] | None = None  # of set_dict(): values of accumulators that do not exist yet
    _remembered: tuple[Any, Any] = (None, None)  # facts of the last step, and its updates
    _ready: frozenset[str] | set[str] = frozenset()  # parameters that have their accumulators

    def _need_eager(self, method: str, instead: str) -> None:
        if mode.tracer() is None and not self._ready:
            raise NotSupportedError(f"Optimizer.{method} works in dygraph mode only; with Programs, {instead}")

    # ---- one step ------------------------------------------------------------------------------
    def _eager_pairs(self, parameter_list: Any, no_grad_set: Any) -> Pairs:
        without = {v if isinstance(v, str) else v.name for v in no_grad_set or ()}
        pairs = []
        for param in parameter_list if parameter_list is not None else self._parameter_list:
            if param.trainable and (not without or param.name not in without):
                grad = param._grad_ivar()
                if grad is not None:
                    pairs.append((param, grad))
        return pairs

    def _eager_minimize(self, loss: Any, parameter_list: Any, no_grad_set: Any) -> tuple[list[Any], Pairs]:
        if not hasattr(loss, "_ivar"):
            raise ArgumentError(f"{type(self).__name__}: the loss must be an eager Variable, received {type(loss).__name__}")
        pairs = self._eager_pairs(parameter_list, no_grad_set)
        self._eager_apply(pairs)
        return [], pairs

    def _eager_apply(self, pairs: Pairs) -> list[Any]:
        tracer: Any = mode.tracer()
        with tracer.no_grad():
            if self._grad_clip is not None:
                pairs = self._grad_clip(pairs)
            elif any(p.gradient_clip_attr is not None for p, _ in pairs):
                pairs = append_gradient_clip_ops(pairs)
            self._update_rate()
            if pairs:
                facts = self._facts(pairs) if tracer.recorder is None else None
                if facts is not None and facts == self._remembered[0]:
                    for group in self._remembered[1]:
                        of = [pairs[k] for k in group.positions]
                        group.run([grad for _, grad in of], self._create_param_lr(of[0]))  # type: ignore[attr-defined]
                else:
                    self._update_all(pairs, facts)
                self._finish_update(pairs[0][0].block, pairs)  # type: ignore[attr-defined]
        return []

    def _facts(self, pairs: Pairs) -> Any:
        """What decides how `pairs` are updated, as something to compare; None where updates can't go together.

        Steps of which it is the same run the same operators over the same lists. A user's own update sees each gradient.
        """
        update = self._append_optimize_op  # type: ignore[attr-defined]
        if not update.__func__.__module__.startswith(__package__):
            return None
        if len({id(p) for p, _ in pairs}) < len(pairs):
            return None
        found: list[Any] = [v for v in vars(self).values() if isinstance(v, (int, float))]
        for param, grad in pairs:
            factor, value = param.optimize_attr["learning_rate"], grad._ivar
            if not isinstance(factor, (int, float)) or not hasattr(value, "is_contiguous"):
                found.append(object())  # equal to nothing: a factor that is a variable, or a sparse gradient
                continue
            chosen = param.regularizer or self.regularization
            decay = chosen and (id(chosen), getattr(chosen, "_regularization_coeff", None))
            found.append((id(param), factor, value.dtype, value.is_contiguous(), decay))
        return found

    def _update_all(self, pairs: Pairs, facts: Any) -> None:
        block = pairs[0][0].block
        if facts is not None:
            block = block.updates(pairs)
        again = True  # whether the same updates are all that the next step needs
        if self.regularization is not None or any(p.regularizer is not None for p, _ in pairs):
            pairs, again = self._regularized(pairs, block)
        fresh = [p for p, _ in pairs if p.name not in self._ready]
        if fresh:
            self.helper = LayerHelper(type(self).__name__)
            self._create_accumulators(block, fresh)  # type: ignore[attr-defined]
            self._ready = set(self._ready) | {p.name for p in fresh}
        for pair in pairs:
            self._append_optimize_op(block, pair)  # type: ignore[attr-defined]
        if facts is not None:
            groups = block.run()
            self._remembered = (facts, groups) if again and groups is not None else (None, None)

    def _regularized(self, pairs: Pairs, block: Any) -> tuple[Pairs, bool]:
        """Gradients with their decay; L2 decay is left to the updates where they can add it. And whether it always was."""
        leave = getattr(block, "leave_decay", None)
        found, left = [], True
        for param, grad in pairs:
            chosen = param.regularizer or self.regularization
            waits = leave is not None and type(chosen) is L2DecayRegularizer
            if waits and leave(self.type, param, grad, chosen._regularization_coeff):  # type: ignore[attr-defined,misc]
                found.append((param, grad))
            else:
                found += append_regularization_ops([(param, grad)], self.regularization)
                left = left and chosen is None
        return found, left

    def _update_rate(self) -> None:
        if is_schedule(self._learning_rate):
            self._eager_rate = self._learning_rate()
        elif self._eager_rate is None:
            self._eager_rate = _filled(names.generate("learning_rate"), "float32", self._learning_rate)

    def current_step_lr(self) -> float | np.floating:
        """The learning rate of the last step (dygraph mode), a float32 number; of the next before the first."""
        need_eager("current_step_lr")
        self._need_eager("current_step_lr", "fetch the learning-rate variable instead")
        if self._eager_rate is not None:
            return np.float32(float(self._eager_rate))
        rate = self._learning_rate
        if not is_schedule(rate):
            return float(rate)
        # a plateau's step() takes the loss; its rate is an attribute
        return float(rate.learning_rate if hasattr(rate, "best_loss") else rate.step())

    def clear_gradients(self) -> None:
        """Forget the gradients of the parameters in parameter_list."""
        need_eager("clear_gradients")
        self._need_eager("clear_gradients", "a Program computes its gradients anew each run")
        for param in self._parameter_list or ():
            if param.trainable:
                param.clear_gradient()

    # ---- state ---------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Accumulators by name; with a schedule also ``LR_Scheduler``, and ``global_step`` if it counts steps."""
        need_eager("state_dict")
        self._need_eager("state_dict", "save the persistable variables with fluid.save or fluid.io")
        found = {var.name: var for group in self._accumulators.values() for var in group.values()}
        rate = self._learning_rate
        if is_schedule(rate):
            found["LR_Scheduler"] = rate.state_dict()
            if hasattr(rate, "step_num"):
                found["global_step"] = _filled("global_step", "int32", rate.step_num)
        return found

    def set_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state_dict() (variables or arrays); also before the first step.

        Raises StateMismatchError: an accumulator or the schedule has no entry, or one of another shape or dtype.
        """
        need_eager("set_dict")
        self._need_eager("set_dict", "load the persistable variables with fluid.load or fluid.io")
        rate = self._learning_rate
        if is_schedule(rate):
            if "LR_Scheduler" not in state_dict:
                raise StateMismatchError(
                    f"{type(self).__name__}.set_dict: the learning rate is a {type(rate).__name__}, but the state has no "
                    "'LR_Scheduler'"
                )
            rate.set_dict(state_dict["LR_Scheduler"])
            if hasattr(rate, "step_num"):
                if "global_step" not in state_dict:
                    raise StateMismatchError(f"{type(self).__name__}.set_dict: the state has no 'global_step'")
                rate.step_num = int(np.asarray(_array(state_dict["global_step"])).reshape(-1)[0])
            self._eager_rate = None
        self._loaded = dict(state_dict)
        for group in self._accumulators.values():
            for var in group.values():
                self._take_loaded(var)

    def _take_loaded(self, var: Any) -> None:
        """Give a new accumulator the value that set_dict() was called with."""
        if not self._loaded:
            return
        if var.name not in self._loaded:
            raise StateMismatchError(
                f"{type(self).__name__}: the state given to set_dict has no {var.name!r}; it has "
                f"{', '.join(map(str, list(self._loaded)[:6]))}. Names of parameters must be those of the run that saved it"
            )
        value = np.asarray(_array(self._loaded[var.name]))
        mine = var.numpy()
        if value.shape != mine.shape or value.dtype != mine.dtype:
            raise StateMismatchError(
                f"{type(self).__name__}.set_dict: {var.name!r} expects {mine.dtype}{list(mine.shape)}, the state has "
                f"{value.dtype}{list(value.shape)}"
            )
        var.set_value(value)


def _array(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else value


def _filled(name: str, dtype: str, value: float) -> Any:
    tracer: Any = mode.tracer()
    var = tracer.new_variable(name, dtype, shape=[1], persistable=True, stop_gradient=True)
    attrs = {"shape": [1], "dtype": var.dtype, "value": float(value)}
    tracer.trace_op("fill_constant", {}, {"Out": [var]}, attrs, stop_gradient=True)
    return var
