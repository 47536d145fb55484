"""A loaded model: its Program, its parameters in a Scope of its own, and the forms in which it can run."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from millstream import passes
from millstream.errors import MillstreamError
from millstream.ir import walk
from millstream.ir.program import Program
from millstream.ir.types import VarType
from millstream.ir.variable import Variable
from millstream.ir.verify import verify
from millstream.ops._values import NO_LOD, TORCH_DTYPE, LoD
from millstream.passes import pipelines
from millstream.runtime import stored
from millstream.runtime.lower import Options
from millstream.runtime.memory import keep_freed_memory
from millstream.runtime.plan import Context, Plan
from millstream.runtime.scope import Scope

_NO_DATA = frozenset({VarType.FEED_MINIBATCH, VarType.FETCH_LIST, VarType.READER, VarType.RAW})
Result = tuple[Any, LoD]


class Form:
    """One way of running a Model: a Program over the Model's Scope, with its Plans. Many threads may run it at a time.

    Attributes:
        name: what it is called in tables ("native", "onnxruntime", …).
        program: what runs.
        engines: the engine sub-models of the Program, by key; they live as long as the Form.
        half: products in bfloat16 where torch's autocast has them.
        direct: the sub-model that takes all feeds and gives all results, in order; None where there is more to do.
    """

    def __init__(self, model: Model, name: str, program: Program, engines: Any = None, half: bool = False) -> None:
        self.name = name
        self.program = program
        self.engines = engines
        self.half = half
        self.work: passes.Work | None = None
        self.direct: Any = None
        self._model = model
        self._plans: dict[tuple[bool, ...], Plan] = {}
        self._lock = threading.Lock()

    def plan(self, lods: Sequence[LoD]) -> Plan:
        """The Plan for inputs with these LoDs (a Plan is made for which of them have one)."""
        key = tuple([bool(lod) for lod in lods])
        found = self._plans.get(key)
        if found is None:
            with self._lock:
                found = self._plans.get(key)
                if found is None:
                    found = self._plans[key] = self._make(key)
        return found

    def _make(self, key: tuple[bool, ...]) -> Plan:
        model = self._model
        options = Options(False, False, model.profile, model.device, model.plan_passes)
        plan = Plan(self.program, dict(zip(model.feeds, key)), model.fetches, model.scope, options)
        plan.bind(model.scope)  # here, so that threads only read what is bound
        return plan

    def run(self, values: list[torch.Tensor], lods: list[LoD], ctx: Context) -> list[Result]:
        """(value, LoD) of each fetch for the feeds' values and LoDs."""
        plan = self.plan(lods)
        if not self.half:
            return plan.run(values, lods, ctx)
        with torch.autocast(self._model.device.type, torch.bfloat16):
            found = plan.run(values, lods, ctx)
        wanted = self._model.result_dtypes
        return [(v.to(d) if isinstance(v, torch.Tensor) and d else v, lod) for (v, lod), d in zip(found, wanted)]


class Model:
    """What a predictor and its clones share.

    Args:
        optimize: whether the forms' Programs go through passes.

    Attributes:
        feeds, fetches: variable names by the Program's feed and fetch operators; vars: the feeds' declarations.
        dtypes: torch dtypes of the feeds, result_dtypes: of the fetches; None where none is declared.
    """

    def __init__(
        self, program: Program, source: str, device: torch.device, profile: bool = False, optimize: bool = True,
        pass_names: Sequence[str] = pipelines.INFER,
    ) -> None:  # fmt: skip
        keep_freed_memory()
        self.program = program
        self.source = source
        self.scope = Scope()
        self.device = device
        self.profile = profile
        self.optimize = optimize
        self.pass_names = tuple(pass_names)
        self.feeds, self.fetches = walk.ends(program, source)
        block = program.global_block()
        self.vars = [block.var(name) for name in self.feeds]
        self.dtypes = [_dtype(v) for v in self.vars]
        self.results = [block.vars.get(name) for name in self.fetches]
        self.result_dtypes = [None if v is None else _dtype(v) for v in self.results]
        self._native: Form | None = None
        self._lock = threading.RLock()

    @property
    def plan_passes(self) -> tuple[str, ...]:
        """What Plans still do; where passes were chosen, only chosen ones."""
        if not self.optimize:
            return ()
        chosen = self.pass_names != pipelines.INFER
        return tuple(name for name in pipelines.PLAN if not chosen or name in self.pass_names)

    def persistables(self) -> list[Variable]:
        """The variables that parameter files hold."""
        return list({v.name: v for v in self.program.list_vars() if v.persistable and v.type not in _NO_DATA}.values())

    def parameter(self, name: str) -> Any:
        """The kernel value of a persistable variable, or None."""
        var = self.scope.find_var(name)
        return None if var is None else var.load()[0]

    def keep(self, values: dict[str, torch.Tensor]) -> None:
        """Put what passes made of parameters beside them."""
        stored.assign(self.scope, {name: (value, NO_LOD) for name, value in values.items()})

    @property
    def native(self) -> Form:
        """The Program on kernels of our own, optimised unless that is switched off; made at the first use."""
        if self._native is None:
            with self._lock:
                if self._native is None:
                    self._native = self._make_native()
        return self._native

    def _make_native(self) -> Form:
        if not self.optimize:
            return Form(self, "native", self.program)
        work = self.optimized(self.program, self.pass_names)
        self.keep(work.values)
        form = Form(self, "native", work.program)
        form.work = work
        return form

    def forget_forms(self) -> None:
        """Make the native form anew at its next use: parameters have changed."""
        with self._lock:
            self._native = None

    def optimized(self, program: Program, names: Sequence[str]) -> passes.Work:
        """A copy of `program` that went through passes; parameters are read from the Scope."""
        try:
            return passes.optimize(program, self.feeds, self.fetches, self.parameter, names)
        except MillstreamError:
            raise
        except Exception:  # passes trust what a Program must be; a damaged one may not be it
            verify(program, [*self.feeds, *self.fetches], after=f" ({self.source})")
            raise

    def context(self) -> Context:
        """What a thread needs to run Plans of this model."""
        rng = torch.Generator(device=self.device)
        rng.manual_seed(int(torch.randint(2**62, (1,)).item()))
        return Context(self.scope, rng, None, self.device)


def _dtype(var: Variable) -> torch.dtype | None:
    return TORCH_DTYPE.get(var.dtype) if var.has_dtype else None


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """torch's threads for one operator set to `count` (None: as they are), and put back."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
