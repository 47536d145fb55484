"""Plan: a lowered Program with its feeds and fetches, run many times."""

from __future__ import annotations

import dataclasses
import functools
import traceback
from collections.abc import Callable
from typing import Any

import torch

from millstream import passes
from millstream.errors import EOFException, MillstreamError, OperatorError, UninitializedError
from millstream.ir.block import Block
from millstream.ir.operator import Operator
from millstream.ir.program import Program
from millstream.ops._grad import rebuild
from millstream.ops._opdef import REGISTRY
from millstream.ops._values import LoD, SelectedRows
from millstream.runtime import turns
from millstream.runtime.capture import Capture, CapturingEmitter
from millstream.runtime.liveness import live_ops
from millstream.runtime.lower import Code, Options, lower_body, lower_global
from millstream.runtime.memory import first_run
from millstream.runtime.place import CPUPlace, CUDAPlace, Place
from millstream.runtime.scope import Scope, ScopeVar
from millstream.runtime.segment import MOST_FORMS
from millstream.runtime.tensor import LoDTensor


class Context:
    """What kernels and emitted code get from the runtime while a Plan runs.

    Attributes:
        scope: the Scope of this run.
        rng: generator of operators whose `seed` is 0.
        executor: the Executor that runs the Plan.
        device: where new tensors are made.
    """

    def __init__(self, scope: Scope, rng: torch.Generator, executor: Any, device: torch.device) -> None:
        self.scope = scope
        self.rng = rng
        self.executor = executor
        self.device = device
        self.recorder: Any = None  # profiler

    def seeded(self, seed: int) -> torch.Generator:
        """A generator that starts at `seed`: operators with a seed give the same values every time."""
        return torch.Generator(device=self.device).manual_seed(seed)

    @staticmethod
    def lod_tensor(values: torch.Tensor, lod: LoD) -> LoDTensor:
        """A value as user code sees it."""
        return LoDTensor.of(values, lod)

    def places(self, kind: str, count: int) -> list[Place]:
        """`count` places (all there are when 0) of `kind` "CPU", "CUDA", or "AUTO": the Executor's."""
        if kind == "CUDA" or (kind == "AUTO" and self.device.type == "cuda"):
            return [CUDAPlace(i) for i in range(count or max(torch.cuda.device_count(), 1))]
        return [CPUPlace() for _ in range(count or 1)]

    @staticmethod
    def own(value: Any, held: Any) -> Any:
        """`value` in memory of its own, unless it is what the Scope holds already."""
        return value if value is held or not isinstance(value, torch.Tensor) else value.clone()

    @staticmethod
    def detach(value: Any) -> Any:
        return rebuild(value, torch.Tensor.detach)

    @staticmethod
    def check_finite(where: tuple[Operator, tuple[str, ...]], values: tuple[Any, ...]) -> None:
        op, names = where
        for name, value in zip(names, values):
            if isinstance(value, SelectedRows):
                value = value.values
            if isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
                nan, inf = int(torch.isnan(value).sum()), int(torch.isinf(value).sum())
                raise OperatorError(
                    f"operator {op.type} output {name!r} of shape {list(value.shape)} contains {nan} NaN and {inf} Inf "
                    f"(FLAGS_check_nan_inf is on)" + (f"\n    at {op.site}" if op.site else "")
                )

    def enter(self, op: Operator, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self.recorder.enter(op, names, values)

    def leave(self, op: Operator, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
        self.recorder.leave(op, names, values)


record = torch._C._set_grad_enabled  # whether autograd does; torch.no_grad() takes 4 us
_PLACE = "\n    at "  # what stands before the user's line


class Body:
    """A lowered sub-Block."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.may_have_lod = code.may_have_lod
        self.function = _compile(code, "body")

    def run(self, env: dict[str, Any], lods: dict[str, LoD], ctx: Context) -> None:
        """Run the Block once over the outer variables in `env`."""
        try:
            self.function(env, lods, ctx)
        except (StopIteration, KeyboardInterrupt):
            raise
        except Exception as error:
            explained = explain(error, self.code)
            if explained is error:
                raise
            raise explained from error


class Plan:
    """The compiled form of (Program version, feeds, fetches)."""

    def __init__(
        self, program: Program, feeds: dict[str, bool], fetches: list[str], scope: Scope, options: Options
    ) -> None:
        self.program = program  # keeps ids in the cache key alive
        self.options = options
        self.owner: tuple[Program, Scope] | None = None  # whose ids are in an Executor's cache key: they must stay taken
        self._bodies: dict[tuple[Any, ...], Body] = {}
        root = program.global_block()
        self.work = passes.work_on(program, live_ops(root, fetches), {*feeds, *fetches})
        if not options.check_nan:
            passes.run(self.work, options.passes)
        block = self.work.block if any(count for _, count in self.work.done) else root
        self.lowered = block.program  # what profiles show
        self.capture = Capture() if options.capture and not options.check_nan and not options.profile else None
        self._whole = _WholeStep(self) if self.capture is not None else None
        self._source = (block, feeds, fetches, scope)
        self._lower()

    def without_capture(self) -> Plan:
        """A Plan of the same Program that compiles nothing."""
        _, feeds, fetches, scope = self._source
        return Plan(self.program, feeds, fetches, scope, dataclasses.replace(self.options, capture=False))

    def _lower(self) -> None:
        block, feeds, fetches, scope = self._source
        state_lods: set[str] = set()
        while True:
            emitter = None
            if self.capture is not None:
                emitter = CapturingEmitter(block, self.options, self._make_body, self.capture)
            self.code = lower_global(block, feeds, fetches, scope, self.options, self._make_body, emitter, state_lods)
            if not self.code.may_have_lod:
                break
            state_lods |= self.code.may_have_lod
        self.function = _compile(self.code, "step")
        self._ran = False
        self._bound: tuple[Scope, int, tuple[Any, ...], tuple[ScopeVar, ...]] | None = None

    def _make_body(self, block: Block, known_lods: set[str], tape: bool, exports: list[str]) -> Body:
        options = Options(tape, self.options.check_nan, self.options.profile, self.options.device)
        # A Block is lowered again until it is known which of its variables have a LoD. Without a memory its own Blocks would
        # be lowered twice each time: 2 ** depth times in all.
        asked = (block, frozenset(known_lods), tape, tuple(exports))
        body = self._bodies.get(asked)
        if body is None:
            body = self._bodies[asked] = Body(lower_body(block, known_lods, options, self._make_body, exports))
        return body

    @property
    def source(self) -> str:
        """The Python source of the Plan and of its sub-Blocks, for reading."""
        return "\n\n".join([self.code.source, *(b.code.source for b in self._bodies.values())])

    def bind(self, scope: Scope) -> tuple[tuple[Any, ...], tuple[ScopeVar, ...]]:
        """Tensors and variables of `scope` that the Plan reads or writes; cached until the Scope changes."""
        bound = self._bound
        if bound is not None and bound[0] is scope and bound[1] == scope._generation:
            return bound[2], bound[3]
        tensors: list[Any] = []
        variables: list[ScopeVar] = []
        root = self.program.global_block()
        for name in self.code.scope_vars:
            var = scope.find_var(name) or scope.var(name)
            if name in self.code.reads_first and var.load()[0] is None:
                self._uninitialized(root, name)
            declared = root._find_var_recursive(name)
            dense = var.obj is None or hasattr(var.obj, "_t")
            is_tensor = declared is None or declared.type.name == "LOD_TENSOR"
            tensors.append(var.get_tensor() if dense and is_tensor else None)
            variables.append(var)
        self._bound = (scope, scope._generation, tuple(tensors), tuple(variables))
        return self._bound[2], self._bound[3]

    @staticmethod
    def _uninitialized(root: Block, name: str) -> None:
        var = root._find_var_recursive(name)
        if var is not None and var.type.name not in ("LOD_TENSOR", "SELECTED_ROWS"):
            return
        raise UninitializedError(
            f"persistable variable {var.describe() if var is not None else name} is not initialized in this scope; "
            "run the startup program (exe.run(fluid.default_startup_program())) or load parameters first"
        )

    def run(self, feed: list[torch.Tensor], feed_lods: list[LoD], ctx: Context) -> list[tuple[Any, LoD]]:
        """One run; returns (value, LoD) for each fetch."""
        return self.run_once(feed, feed_lods, ctx) if self._whole is None else self._whole(feed, feed_lods, ctx)

    def run_once(self, feed: list[torch.Tensor], feed_lods: list[LoD], ctx: Context) -> list[tuple[Any, LoD]]:
        """:meth:`run` as this Plan is, whatever else may be faster."""
        if self.capture is not None and self.capture.stale:
            self._lower()
        tensors, variables = self.bind(ctx.scope)
        recording = torch.is_grad_enabled()
        record(False)
        try:
            if self._ran:
                return self.function(feed, feed_lods, tensors, variables, ctx)
            self._ran = True
            with first_run():
                return self.function(feed, feed_lods, tensors, variables, ctx)
        except (StopIteration, KeyboardInterrupt):
            raise
        except Exception as error:
            explained = explain(error, self.code)
            if explained is error:
                raise
            raise explained from error
        finally:
            record(recording)


class _WholeStep:
    """Steps with compiled code, at last in turn with those of a Plan without: segments know only their own operators.

    A segment gives up what the kernels have across operators (autograd's handles, updates in one call), so all of
    them may win and the step be slower. What was found is remembered; a step that is known to be slower compiles nothing.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._plain: Plan | None = None
        self._turns = turns.Trial()
        self._form: Any = None
        self._others = 0  # steps in a row with feeds of other forms

    def __call__(self, feed: list[torch.Tensor], feed_lods: list[LoD], ctx: Context) -> list[tuple[Any, LoD]]:
        form = [(tuple(t.shape), str(t.dtype)) for t in feed]
        if self._form is None:
            self._form = form
            known = turns.recall(self._question())
            if known is not None:
                self._end(known)
        capture = self._plan.capture
        self._others = 0 if form == self._form else self._others + 1
        if self._others > MOST_FORMS and capture is not None and not capture.stale:
            capture.whole, self._plan._whole = "the whole step: not compared, feeds have other shapes every time", None
        if self._plan._whole is None or form != self._form or capture is None or not capture.settled:
            return self._plan.run_once(feed, feed_lods, ctx)
        if not any(segment.compiled for segment in capture.segments):
            capture.whole, self._plan._whole = "nothing is compiled", None
            return self._plan.run_once(feed, feed_lods, ctx)
        if self._plain is None:
            self._plain = self._plan.without_capture()
        found = self._turns.time((self._plain if self._turns.by_kernels else self._plan).run_once, feed, feed_lods, ctx)
        verdict = self._turns.verdict()
        if verdict is not None:
            turns.remember(self._question(), verdict)
            self._end(verdict)
        return found  # type: ignore[no-any-return]

    def _question(self) -> dict[str, Any]:
        return turns.question(self._plan.lowered.global_block().ops, ("step", self._form))

    def _end(self, found: turns.Verdict) -> None:
        self._plan._whole, capture = None, self._plan.capture
        assert capture is not None
        mine, kernels = found.compiled * 1e3, found.kernels * 1e3
        capture.whole = f"the whole step: {mine:.3g} ms, {kernels:.3g} ms by kernels alone"
        if found.compiled > found.kernels:
            for segment in capture.segments:
                segment.leave(found, "the whole step with compiled code")


def _compile(code: Code, name: str) -> Callable[..., Any]:
    filename = f"<plan {id(code):x}>"
    namespace = code.constants
    exec(compile(code.source, filename, "exec"), namespace)  # our own generated text; no user strings but names via repr
    return namespace[name]


def explain(error: Exception, code: Code) -> Exception:
    """`error` as an OperatorError that names the operator, its variables and the user's line.

    Our own errors keep their class; one that says where it comes from already is given back as it is.
    """
    if isinstance(error, EOFException) or (isinstance(error, MillstreamError) and _PLACE in str(error)):
        return error
    op, values = None, {}
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == f"<plan {id(code):x}>":
            op, values = code.op_of_line.get(number), frame.f_locals
    if op is None:
        return error
    ours = isinstance(error, MillstreamError)
    lines = [f"operator {op.type}: {error}" if ours else f"operator {op.type} failed: {type(error).__name__}: {error}"]
    for slot, names in op.inputs.items():
        for name in names:
            lines.append(f"    input {slot}: {_described(op.block, name, values.get('v' + code.local.get(name, '')))}")
    attrs = {k: v for k, v in op.all_attrs().items() if not k.startswith("op_")}
    if attrs:
        lines.append("    attributes: " + ", ".join(f"{k}={v!r}"[:60] for k, v in list(attrs.items())[:12]))
    if op.site is not None:
        lines.append(f"    at {op.site}")
    raised: Any = type(error)
    kind = raised if ours else _combined(raised)
    explained: Exception = kind("\n".join(lines))
    if isinstance(explained, OperatorError):
        explained.by_user = bool(REGISTRY.get(op.type).extra.get("calls_user"))
    return explained


def _described(block: Block, name: str, value: Any) -> str:
    """A variable as it is declared, and what it was given where that has a shape."""
    var = block._find_var_recursive(name)
    text = var.describe() if var is not None else name
    if not isinstance(value, torch.Tensor) or (var is not None and var.has_shape and list(var.shape) == list(value.shape)):
        return text
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{text}, received {'' if f': {dtype}[' in text else dtype}{list(value.shape)}"


@functools.cache
def _combined(kind: type[Exception]) -> type[Exception]:
    """OperatorError that is a `kind` too: what a user's own function raised is caught as what it is."""
    try:
        made = type("OperatorError", (OperatorError, kind), {"__str__": BaseException.__str__, "__module__": __name__})
        made("")
    except TypeError:  # a class with an object layout or arguments of its own
        return OperatorError
    return made
