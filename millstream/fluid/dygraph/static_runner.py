"""``fluid.dygraph.static_runner``: a saved inference model as an eager layer that can be trained on."""

from __future__ import annotations

from typing import Any

from millstream.fluid.dygraph.base import _need_eager
from millstream.fluid.dygraph.dygraph_to_static.partial_program import PartialProgramLayer
from millstream.fluid.dygraph.layers import Layer
from millstream.fluid.io import load_inference_model
from millstream.ir import mode, walk
from millstream.ir.program import Program
from millstream.runtime.eager import ParamBase, VarBase
from millstream.runtime.executor import Executor
from millstream.runtime.scope import Scope, scope_guard

__all__ = ["StaticModelRunner"]


class StaticModelRunner(Layer):
    """The model in `model_dir`: forward() takes its inputs in the order of saving and returns its output (or a list).

    Its parameters are this layer's; floating-point ones are trainable. In training (the default, :meth:`train`) dropout
    drops and batch_norm uses the batch's statistics, whatever the saved operators say; after :meth:`eval` they don't.

    Args:
        model_filename, params_filename: as for load_inference_model.
    """

    def __init__(self, model_dir: str, model_filename: str | None = None, params_filename: str | None = None) -> None:
        super().__init__()
        tracer = _need_eager("StaticModelRunner")
        scope = Scope()
        old = mode.switch_tracer(None)
        try:
            with scope_guard(scope):
                program, feeds, fetches = load_inference_model(
                    model_dir, Executor(tracer.place), model_filename, params_filename
                )
        finally:
            mode.switch_tracer(old)
        holders = self._holders_of(program, scope)
        def form(is_test: bool) -> PartialProgramLayer:
            copy = program.clone()
            for op in walk.all_ops(copy):
                if op.has_attr("is_test"):
                    op._set_attr("is_test", is_test)
            block = copy.global_block()
            return PartialProgramLayer(copy, [block.var(n) for n in feeds], [block.var(v.name) for v in fetches], holders)

        self._runner = form(is_test=False)
        self._tester = (form(is_test=True),)  # in a tuple: its parameters are those of the other

    @staticmethod
    def _holders_of(program: Program, scope: Scope) -> list[VarBase]:
        found: list[VarBase] = []
        for var in program.list_vars():
            holder = scope.find_var(var.name) if var.persistable else None
            if holder is None or holder.obj is None or not hasattr(holder.obj, "_t"):
                continue
            value = holder.get_tensor().torch()
            var.stop_gradient = not value.is_floating_point()
            found.append(ParamBase(value, var.name, trainable=value.is_floating_point()))
        for var in program.list_vars():
            if not var.persistable:
                var.stop_gradient = False
        return found

    def forward(self, *args: Any) -> Any:
        outs = (self._runner if self.training else self._tester[0])(list(args))
        return outs[0] if len(outs) == 1 else outs
