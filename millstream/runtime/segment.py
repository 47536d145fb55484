"""A run of operators as one function of tensors, compiled for each form of its arguments by torch's compiler.

The first call with new shapes, strides or dtypes tries every operator on fake tensors beside its real run: those that
look at values refuse, and the Plan is lowered again without them. The second one traces and compiles, and compares the
compiled results with those of the kernels. The next ones take turns and are timed; from then on the faster of the two runs,
and later processes know which (turns.py). Last, whole steps take turns with those of a Plan without segments (plan.py).
"""

from __future__ import annotations

import gc
import os
import re
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from millstream import config
from millstream.ir.operator import Operator
from millstream.runtime import turns
from millstream.runtime.memory import first_run, give_back

MOST_FORMS = 8  # of arguments to compile for; what has more (every batch another length) runs kernel by kernel
_SAMPLE = 1 << 14  # elements of a result that are compared
_MOST = 0.25  # share that any floating point result may be off
_TOLERANCE = {torch.float64: 1e-6, torch.bfloat16: 5e-2, torch.float16: 1e-2}  # of the largest value; else 1e-3


class Segment:
    """Callable with the segment's tensors and then its generators; returns its results as a tuple.

    Args:
        code: source, constants and operators by line, of the function `segment`.
        ops: its operators.
        tensors: how many of the arguments are values (the others are generators, or the Context that has some).
        near: for each result, within how many times the usual share the compiled one must be the kernels'; 0: it need not
            be near (an update such as Adam's turns the rounding noise of a gradient near zero into a whole step of
            either sign).
        refuse: told (operator, why) of each operator that can't be traced.
    """

    def __init__(self, code: Any, ops: list[Operator], tensors: int, near: list[int],
                 refuse: Callable[[Operator, str], None]) -> None:  # fmt: skip
        config.keep_compiled_code()
        self.code = code
        self.ops = ops
        self._near = near
        self._tensors = tensors
        self._refuse = refuse
        self._filename = f"<segment {id(code):x}>"
        namespace = code.constants
        exec(compile(code.source, self._filename, "exec"), namespace)  # our own text (see runtime/plan.py)
        self._function = namespace["segment"]
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._tried: set[Any] = set()
        self._eager = ""  # why no (more) forms are compiled
        self._lock = threading.Lock()

    @property
    def settled(self) -> bool:
        """Whether it is known how the forms of arguments that came so far run."""
        known = self._eager or (self._compiled and len(self._compiled) == len(self._tried))
        return bool(known) and not any(isinstance(c, _Trial) for c in self._compiled.values())

    @property
    def compiled(self) -> bool:
        """Whether any form of its arguments runs as compiled code."""
        return bool(self._compiled)

    def state(self) -> str:
        """Whether it is compiled, for people."""
        text = f"compiled for {len(self._compiled)} forms of its arguments" if self._compiled else "not compiled"
        return f"{text}; {self._eager}" if self._eager else text

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        values = args[: self._tensors]
        key = tuple((a.shape, a.stride(), a.dtype) if type(a) is torch.Tensor else a is None for a in values)
        compiled = self._compiled.get(key)
        if compiled is not None:
            return compiled(values, args[self._tensors :])
        if self._eager:
            return self._function(*args)
        with self._lock:
            return self._first(key, values, args[self._tensors :])

    def _first(self, key: Any, values: Sequence[Any], generators: Sequence[Any]) -> tuple[Any, ...]:
        if any(entry is False for entry in key):
            self._eager = "an argument is not a tensor"
        elif len(self._tried) >= MOST_FORMS and key not in self._tried:
            self._eager = f"more than {MOST_FORMS} forms of its arguments"
        if self._eager:
            return self._function(*values, *generators)
        if key not in self._tried:
            probed = bool(self._tried)
            self._tried.add(key)
            if self._known_to_be_slower(key) or probed:
                return self._function(*values, *generators)
            return _probe(self, values, generators)
        draws = _Draws(generators)
        versions = [None if v is None else v._version for v in values]
        with draws:
            results = list(self._function(*values, *generators))
        untouched = versions == [None if v is None else v._version for v in values]
        filled = [k for k, v in enumerate(results) if v is not None]
        wanted = {k: _Sample(results[k]) for k in filled if self._near[k]} if untouched else {}
        if untouched:
            results.clear()  # compiling takes memory, and so do compiled code's own
        try:
            with first_run():
                give_back()
                compiled = self._compile(values, draws, filled)
                gc.collect()
                give_back()
                if untouched:
                    results += self._checked(compiled, wanted, values, draws)
            known = turns.recall(turns.question(self.ops, key))
            self._compiled[key] = _Trial(self, key, compiled) if known is None else compiled
        except Exception as error:  # whatever the compiler finds: the kernels go on
            op = self._culprit(error)
            if op is not None:
                self._refuse(op, _brief(error))
            self._eager = f"not compiled: {_brief(error)}"
        if len(results) < len(self._near):
            with _Given(draws.drawn):
                results += self._function(*values, *generators)
        return tuple(results)

    def _checked(
        self, compiled: _Compiled, wanted: dict[int, _Sample], values: Sequence[Any], draws: _Draws
    ) -> tuple[Any, ...]:
        """What compiled code gives; ValueError unless it is what the kernels gave."""
        found = compiled.given(values, draws.drawn)
        largest = max((s.scale for k, s in wanted.items() if self._near[k] > 1), default=0.0)
        for k, sample in wanted.items():
            sample.compare(k, found[k], self._near[k], largest)
        return found

    def keep(self, key: Any, compiled: Callable[..., Any], found: turns.Verdict) -> None:
        """After the trial: compiled code goes on, or, where it is slower, its operators stay outside from now on."""
        self._compiled[key] = compiled
        turns.remember(turns.question(self.ops, key), found)
        if found.compiled > found.kernels:
            self.leave(found, "compiled code")

    def leave(self, found: turns.Verdict, what: str) -> None:
        """Refuse all operators: `what` was slower."""
        mine, kernels = found.compiled * 1e3, found.kernels * 1e3
        for op in self.ops:
            self._refuse(op, f"{what} was slower ({mine:.3g} ms, the kernels {kernels:.3g} ms)")

    def _known_to_be_slower(self, key: Any) -> bool:
        """Whether a process before found so; then nothing is compiled."""
        known = turns.recall(turns.question(self.ops, key))
        if known is None or known.compiled <= known.kernels:
            return False
        self.leave(known, "compiled code")
        self._eager = "compiled code was slower"
        return True

    def _culprit(self, error: BaseException) -> Operator | None:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == self._filename:
                return self.code.op_of_line.get(frame.lineno or -1)
        return None

    def _compile(self, values: Sequence[Any], draws: _Draws, filled: list[int]) -> _Compiled:
        """`filled`: positions of the results that are tensors."""
        from torch._inductor.compile_fx import compile_fx  # here: the import takes seconds
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        if draws.refused:
            raise ValueError(draws.refused)
        present = [k for k, v in enumerate(values) if v is not None]
        count = len(present)

        def flat(*inputs: torch.Tensor) -> list[Any]:
            arguments: list[Any] = [None] * len(values)
            for k, tensor in zip(present, inputs):
                arguments[k] = tensor
            with _Given(list(inputs[count:])):
                out = self._function(*arguments, *draws.generators)
            return [out[k] for k in filled]

        example = [values[k] for k in present] + draws.drawn
        fakes = FakeTensorMode(shape_env=ShapeEnv())  # without a ShapeEnv code is not kept on disk
        with torch.no_grad():
            graph = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*example)
            with tracing(TracingContext(fakes)):
                shapes = [fakes.from_tensor(t, static_shapes=True) for t in example]
                try:
                    code = compile_fx(graph, shapes)
                except Exception as error:
                    if not _remove_unfinished(error):
                        raise
                    code = compile_fx(graph, shapes)
        return _Compiled(code, present, filled, len(self._near), draws.recipes)


class _Compiled:
    """Compiled code with the call form of a segment.

    Args:
        code: what the compiler made; it takes the tensors among the arguments, then draws.
        present, filled: positions of tensors among the arguments and among the results.
        width: how many results there are.
        recipes: how to draw again.
    """

    def __init__(
        self, code: Any, present: list[int], filled: list[int], width: int,
        recipes: list[Callable[[Sequence[Any]], torch.Tensor]],
    ) -> None:  # fmt: skip
        self._code, self._present, self._filled, self._width, self._recipes = code, present, filled, width, recipes

    def __call__(self, values: Sequence[Any], generators: Sequence[Any]) -> tuple[Any, ...]:
        return self.given(values, [again(generators) for again in self._recipes])

    def given(self, values: Sequence[Any], drawn: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """The results with random numbers as they were drawn."""
        found = self._code(*[values[k] for k in self._present], *drawn)
        results: list[Any] = [None] * self._width
        for k, value in zip(self._filled, found):
            results[k] = value
        return tuple(results)


class _Trial:
    """Compiled code that takes turns with the kernels until it is known which is faster."""

    def __init__(self, segment: Segment, key: Any, compiled: Callable[..., Any]) -> None:
        self._segment, self._key, self._compiled = segment, key, compiled
        self._turns = turns.Trial()

    def __call__(self, values: Sequence[Any], generators: Sequence[Any]) -> tuple[Any, ...]:
        if self._turns.by_kernels:
            found = self._turns.time(self._segment._function, *values, *generators)
        else:
            found = self._turns.time(self._compiled, values, generators)
        known = self._turns.verdict()
        if known is not None:
            self._segment.keep(self._key, self._compiled, known)
        return found  # type: ignore[no-any-return]


# ---- what can be traced --------------------------------------------------------------------------
def _probe(segment: Segment, values: Sequence[Any], generators: Sequence[Any]) -> tuple[Any, ...]:
    """Run the segment's lines one by one, for real and on fake tensors; operators that fail on these refuse."""
    head, *lines, last = segment.code.source.split("\n")
    names = head[head.index("(") + 1 : head.rindex(")")].split(", ") if len(values) + len(generators) else []
    fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(value: Any) -> Any:
        return fakes.from_tensor(value) if isinstance(value, torch.Tensor) else value

    real = dict(zip(names, [*values, *generators]))
    shadow = {name: fake(value) for name, value in real.items()}
    for number, line in enumerate(lines):
        op = segment.code.op_of_line.get(number + 2)
        text = compile(line.strip(), segment._filename, "exec")
        draws = _Draws(generators)
        with draws:
            exec(text, segment.code.constants, real)
        try:
            if draws.refused:
                raise ValueError(draws.refused)
            with fakes, _Given([fake(t) for t in draws.drawn]):
                exec(text, segment.code.constants, shadow)
        except Exception as error:  # any: a kernel that looks at values may fail in any way
            if op is not None:
                segment._refuse(op, _brief(error))
            shadow.update({name: fake(value) for name, value in real.items() if name in line.partition(" = ")[0]})
    return eval(compile(last.strip().removeprefix("return "), segment._filename, "eval"), segment.code.constants, real)


def _remove_unfinished(error: Exception) -> bool:
    """Whether it came of a library that a process left half written when it was ended while it compiled; that is removed."""
    found = re.search(r"(/\S+\.so): (?:file too short|invalid ELF header)", str(error))
    if found is None or not found[1].startswith(config.keep_compiled_code()):
        return False
    with suppress(FileNotFoundError):  # someone else did
        os.remove(found[1])
    return True


def _brief(error: BaseException) -> str:
    """The first line of an exception, cut."""
    if "aten._local_scalar_dense" in str(error) or type(error).__name__ == "DataDependentOutputException":
        return "it looks at values (.item())"
    if type(error).__name__ == "DynamicOutputShapeException":
        return "the shape of its result depends on values"
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:160]}"


class _Sample:
    """What is kept of a result of the kernels: its form, and up to as many elements as are compared."""

    def __init__(self, value: torch.Tensor) -> None:
        self.shape, self.dtype = value.shape, value.dtype
        self._values = self._of(value).clone()
        self._finite = torch.isfinite(self._values)
        there = self._values[self._finite]
        self.scale = float(there.abs().max()) if there.is_floating_point() and there.numel() else 0.0

    @staticmethod
    def _of(value: torch.Tensor) -> torch.Tensor:
        return value.reshape(-1)[:: 1 + value.numel() // _SAMPLE]

    def compare(self, k: int, value: torch.Tensor, near: int, largest: float) -> None:
        """ValueError unless result `k`, compiled, is this within a share of its largest value.

        Args:
            near: how many times the usual share.
            largest: value of all results like this one; gradients that are zero but for rounding have its noise.
        """
        if self.shape != value.shape or self.dtype is not value.dtype:
            form = f"{value.dtype} {list(value.shape)} compiled, {self.dtype} {list(self.shape)} otherwise"
            raise ValueError(f"result {k} is {form}")
        a, b = self._values, self._of(value)
        if not a.is_floating_point():
            wrong = int((a != b).sum())
            if wrong * 1000 > a.numel():
                raise ValueError(f"{wrong} of {a.numel()} integers of result {k} differ")
            return
        if not bool((self._finite == torch.isfinite(b)).all()):
            raise ValueError(f"result {k} has NaN or Inf in other places")
        if bool(self._finite.any()):
            tolerance = _TOLERANCE.get(a.dtype, 1e-3)
            worst = float((a[self._finite].double() - b[self._finite].double()).abs().max())
            # noise beside nothing is no difference
            if worst > min(tolerance * near, _MOST) * self.scale + tolerance / 10 * largest * (near > 1) + 1e-6:
                raise ValueError(f"result {k} differs by {worst:.3g} where the largest value is {self.scale:.3g}")


# ---- random numbers --------------------------------------------------------------------------------
class _Draws(TorchFunctionMode):
    """Keeps what is drawn from generators, and how to draw it again: compiled code gets draws as arguments."""

    def __init__(self, generators: Sequence[Any]) -> None:
        super().__init__()
        self.generators = list(generators)
        self.drawn: list[torch.Tensor] = []
        self.recipes: list[Callable[[Sequence[Any]], torch.Tensor]] = []
        self.refused = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if isinstance(kwargs.get("generator"), torch.Generator):
            self._note(func, args, kwargs, out)
        return out

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: torch.Tensor) -> None:
        which = _where_from(kwargs["generator"], self.generators)
        rest = {k: v for k, v in kwargs.items() if k != "generator"}
        into = args[0] if args and isinstance(args[0], torch.Tensor) and func.__name__.endswith("_") else None
        given = args[1:] if into is not None else args
        if which is None or any(isinstance(v, torch.Tensor) for v in (*given, *rest.values())):
            self.refused = "what it draws depends on values"
            return
        self.drawn.append(out.clone())
        if into is None:
            self.recipes.append(lambda generators: func(*given, **rest, generator=which(generators)))
        else:
            shape, dtype, device = into.shape, into.dtype, into.device
            self.recipes.append(
                lambda generators: func(
                    torch.empty(shape, dtype=dtype, device=device), *given, **rest, generator=which(generators)
                )
            )


def _where_from(generator: torch.Generator, sources: Sequence[Any]) -> Callable[[Sequence[Any]], torch.Generator] | None:
    """How to get a generator that an operator drew from out of the sources of another run."""
    for k, source in enumerate(sources):
        if source is generator:
            return lambda sources: sources[k]
        if not isinstance(source, torch.Generator):
            if source.rng is generator:
                return lambda sources: sources[k].rng
            seed = generator.initial_seed()
            return lambda sources: sources[k].seeded(seed)
    return None


class _Given(TorchFunctionMode):
    """Gives, for each draw, the next of the tensors that stand for draws."""

    def __init__(self, draws: list[Any]) -> None:
        super().__init__()
        self._draws = draws
        self._next = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.data_ptr and type(args[0]) is not torch.Tensor:
            raise ValueError("it reads memory by address")  # a stand-in has none: a kernel would crash
        if not isinstance(kwargs.get("generator"), torch.Generator):
            return func(*args, **kwargs)
        draw = self._draws[self._next]
        self._next += 1
        return args[0].copy_(draw) if args and isinstance(args[0], torch.Tensor) else draw
