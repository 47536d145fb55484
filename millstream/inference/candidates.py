"""The forms a model may run in: measured against each other on real inputs, their results compared with the native ones."""

from __future__ import annotations

import math
import statistics
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from millstream.errors import MillstreamError, NotSupportedError
from millstream.inference import choices, engines
from millstream.inference.model import Form, Model, Result
from millstream.inference.partition import Partition, partition
from millstream.inference.split import can_split, split
from millstream.inference.whole import whole, worth_a_try
from millstream.ir import walk
from millstream.ops._values import LoD
from millstream.runtime.plan import Context

TOLERANCE = 1e-3
"""Largest difference from the native results, relative to the largest of them, at which a float32 engine is right."""
QUANTIZED_TOLERANCE = 0.02
"""The same for a Program that rounds to integers itself: a number between two of them may go to either."""
SIGNATURES = 8
"""Kinds of inputs that are measured; later ones get the choice of the most similar."""
TURNS, SLOW_TURNS = 5, 2
"""Turns that the candidates take when they are measured; of runs that take half the time there is for one, one each."""
BEHIND, CLOSE = 1.5, 1.06
"""A candidate whose best run takes so many times the leader's is not measured any further; close ones for twice as long."""
Request = tuple[list[torch.Tensor], list[LoD]]
Signature = tuple[tuple[Any, ...], ...]


@dataclass
class Choice:
    """What was found for one kind of inputs.

    Attributes:
        form: the fastest.
        milliseconds: by candidate; rejected: why others were not taken; remembered: whether times come from disk.
    """

    signature: Signature
    form: Form
    milliseconds: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    remembered: bool = False

    def explain(self) -> str:
        """The candidates with their times, as text."""
        lines = [f"inputs {_text(self.signature)}: {self.form.name}" + (" (remembered)" if self.remembered else "")]
        for name, ms in sorted(self.milliseconds.items(), key=lambda item: item[1]):
            lines.append(f"  {name:<24}{ms:>12.3f} ms")
        return "\n".join(lines + [f"  {name:<24} not taken: {why}" for name, why in self.rejected.items()])


def signature_of(values: Sequence[torch.Tensor], lods: Sequence[LoD]) -> Signature:
    """The kind of a request: shapes and dtypes; rows of ragged inputs count in powers of two."""
    return tuple([_kind(v, lod) for v, lod in zip(values, lods)])


def _kind(v: torch.Tensor, lod: LoD) -> tuple[Any, ...]:
    if not lod:
        return (*v.shape, str(v.dtype), 0)
    return (2 ** max(v.shape[0] - 1, 0).bit_length(), *v.shape[1:], str(v.dtype), len(lod))


def difference(found: Sequence[Result], wanted: Sequence[Result]) -> float:
    """The largest difference of results, relative to the largest value of each; infinite where shapes or LoDs differ."""
    worst = 0.0
    for (a, a_lod), (b, b_lod) in zip(found, wanted):
        if len(a_lod) != len(b_lod) or any(x.tolist() != y.tolist() for x, y in zip(a_lod, b_lod)):
            return math.inf
        if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape or a.dtype != b.dtype:
            return math.inf
        if not b.numel():
            continue
        if not b.is_floating_point():
            worst = max(worst, float((a != b).double().mean()))
            continue
        x, y = a.double(), b.double()
        same = (x == y) | (x.isnan() & y.isnan())
        gap = torch.where(same, torch.zeros_like(x), (x - y).abs())
        if gap.isnan().any():
            return math.inf
        scale = float(y[y.isfinite()].abs().max()) if bool(y.isfinite().any()) else 1.0
        worst = max(worst, float(gap.max()) / max(scale, 1e-6))
    return worst


class Candidates:
    """Picks the Form for each request.

    Args:
        engine: "native", "auto", or an engine's name.
        fixed: Forms that take the place of the engines' own (those of a reduced precision), by name.
        max_error: see TOLERANCE, which it replaces; with "auto", engines may then compute in bfloat16 too.
    """

    def __init__(
        self, model: Model, engine: str, options: engines.Options, *, fixed: dict[str, Form] | None = None,
        remember: bool = True, seconds: float = 1.0, max_error: float | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.engine = engine
        self.options = options
        self.fixed = fixed or {}
        self.choices: dict[Signature, Choice] = {}
        self.partitions: dict[str, Partition] = {}
        self._reduced = engine == "auto" and max_error is not None and not fixed
        self.max_error = max_error or (QUANTIZED_TOLERANCE if _quantized(model) else TOLERANCE)
        self._remember = remember
        self._seconds = seconds
        self._lock = threading.RLock()
        self._digest: str | None = None
        self._dense = [v.lod_level == 0 for v in model.vars]
        if engine not in ("native", "auto") and not self.fixed:
            engines.need(engine)

    def form(self, values: list[torch.Tensor], lods: list[LoD], ctx: Context) -> Form:
        """The Form for these inputs; the first of their kind are measured when the engine is "auto"."""
        if self.engine == "native" and not self.fixed:
            return self.model.native
        if any(lod and dense for lod, dense in zip(lods, self._dense)):
            return self.model.native  # sub-models were cut where no LoD was declared
        if self.engine != "auto":
            return self._one((values, lods), ctx)
        signature = signature_of(values, lods)
        found = self.choices.get(signature)
        if found is None:
            with self._lock:
                found = self.choices.get(signature)
                if found is None:
                    found = self._choose(signature, (values, lods), ctx)
        return found.form

    def replaces(self) -> bool:
        """Whether the native Form takes over from one that fails at work ("auto" only)."""
        return self.engine == "auto"

    def failed(self, form: Form, values: list[torch.Tensor], lods: list[LoD], error: Exception) -> None:
        """The native Form takes over for inputs of this kind from one that failed at work."""
        signature = signature_of(values, lods)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"{form.name} failed for inputs {_text(signature)}, native takes over: {reason}", stacklevel=4)
        self.choices[signature] = Choice(signature, self.model.native, rejected={form.name: reason})

    # ---- making forms ------------------------------------------------------------------------
    def _one(self, request: Request, ctx: Context) -> Form:
        """The Form of a named engine: what it takes of the Program, or all of it where that is there, right and faster."""
        if self.engine in self.fixed:
            return self.fixed[self.engine]
        with self._lock:
            made = self.partitions.get(self.engine)
            if made is None:
                made = partition(self.model, self.engine, self.options)
                if (made.form is None or made.form.direct is None) and worth_a_try(self.model):
                    made = self._all_of_it(made, request, ctx)
                self.partitions[self.engine] = made
        if made.form is None:
            raise NotSupportedError(f"engine {self.engine!r} takes no part of the model:\n{made.explain()}")
        return made.form

    def _all_of_it(self, parts: Partition, request: Request, ctx: Context) -> Partition:
        try:
            found = whole(self.model, self.engine, self.options)
            if found.form is None or parts.form is None:
                return parts if found.form is None else found
            form = found.form
            self._check(form, request, ctx, form.run(*request, ctx), self.model.native.run(*request, ctx))
        except (MillstreamError, RuntimeError, ValueError) as error:
            parts.note = f"not altogether: {str(error).splitlines()[0][:300]}"
            return parts
        times = measure({"parts": parts.form, "whole": form}, request, ctx, self._seconds / 4)
        return found if times["whole"] < times["parts"] else parts

    def _make(self, name: str) -> Form:
        if name == "native":
            return self.model.native
        if name in self.fixed:
            return self.fixed[name]
        for choice in self.choices.values():  # an engine that another kind of inputs uses
            if choice.form.name == name:
                return choice.form
        engine, _, way = name.partition(" ")
        made = self.partitions[name] = _WAYS[way](self.model, engine, self.options)
        if made.form is None:
            raise NotSupportedError("it takes no part of the model: " + made.explain().replace("\n", "; "))
        return made.form

    def _names(self, values: Sequence[torch.Tensor] = ()) -> list[str]:
        """The candidates for these inputs."""
        if self.model.device.type == "cpu":
            found = [n for n in ("onnxruntime", "openvino") if engines.why_not(n) is None]
        else:
            found = [n for n in ("cuda", "tensorrt") if engines.why_not(n) is None]
        if not self.fixed and "onnxruntime" in found and worth_a_try(self.model):
            found.append("onnxruntime whole")
        elif not self.fixed and self.options.threads > 1 and can_split(self.model, values):
            found += [f"{n} split" for n in found if n in ("onnxruntime", "openvino")]
        if self._reduced and "openvino" in found:
            found.append("openvino bfloat16")
        return ["native", *found, *(n for n in self.fixed if n not in ("native", *found))]

    # ---- choosing ----------------------------------------------------------------------------
    def _choose(self, signature: Signature, request: Request, ctx: Context) -> Choice:
        if len(self.choices) >= SIGNATURES:
            near = min(self.choices.values(), key=lambda c: _distance(c.signature, signature))
            made = self.choices[signature] = Choice(signature, near.form)
            if len(self.choices) > 1024:  # each a few hundred bytes; requests of ever new shapes must not add up
                for old in list(self.choices)[SIGNATURES:512]:
                    del self.choices[old]
            return made
        asked = None
        if self._remember:
            if self._digest is None:
                self._digest = choices.digest(self.model)
            kind = "+".join([self.options.precision, *self.fixed, *(["bfloat16"] if self._reduced else [])])
            asked = choices.question(self._digest, signature, self.options.threads, kind)
            known = choices.recall(asked)
            if known is not None:
                remembered = self._recalled(signature, request, ctx, known)
                if remembered is not None:
                    return remembered
        choice = self.choices[signature] = self._measure(signature, request, ctx)
        if asked is not None:
            choices.remember(asked, choice.milliseconds)
        return choice

    def _recalled(self, signature: Signature, request: Request, ctx: Context, known: dict[str, float]) -> Choice | None:
        """The remembered choice, if it can be made again and its results are right."""
        name = next(iter(known))
        if name not in self._names(request[0]):
            return None
        try:
            form = self._make(name)
            self._check(form, request, ctx, form.run(*request, ctx), self.model.native.run(*request, ctx))
        except (MillstreamError, RuntimeError, ValueError):
            return None
        choice = self.choices[signature] = Choice(signature, form, known, remembered=True)
        return choice

    def _measure(self, signature: Signature, request: Request, ctx: Context) -> Choice:
        wanted = _own(self.model.native.run(*request, ctx))
        forms: dict[str, Form] = {}
        rejected: dict[str, str] = {}
        for name in self._names(request[0]):
            try:
                form = self._make(name)
                self._check(form, request, ctx, form.run(*request, ctx), wanted)
                forms[name] = form
            except (MillstreamError, RuntimeError, ValueError) as error:
                rejected[name] = str(error).split("\n")[0][:300]
        times = measure(forms, request, ctx, self._seconds)
        best = min(times, key=lambda name: times[name])
        used = {id(choice.form) for choice in self.choices.values()} | {id(forms[best])}
        for made in self.partitions.values():
            if made.form is not None and id(made.form) not in used:
                made.form = None  # engines that were slower hold weights of their own
        return Choice(signature, forms[best], times, rejected)

    def _check(self, form: Form, request: Request, ctx: Context, found: list[Result], wanted: list[Result]) -> None:
        if form.name in self.fixed or form is self.model.native:
            return  # judged on calibration data, or what the others are compared with
        off = difference(found, wanted)
        if off > self.max_error:
            raise NotSupportedError(f"its results are off by {off:.2e} of the largest value; {self.max_error:g} is allowed")


def _in_bfloat16(model: Model, engine: str, options: engines.Options) -> Partition:
    made = partition(model, engine, replace(options, precision="bfloat16"))
    if made.form is not None:
        made.form.name = f"{engine} bfloat16"
    return made


_WAYS = {"": partition, "whole": whole, "split": split, "bfloat16": _in_bfloat16}


def _quantized(model: Model) -> bool:
    kinds = ("quantize_linear", "quantize_dequantize_linear")
    return any(op.type in kinds or op.type.startswith("fake_quantize") for op in walk.all_ops(model.program))


def measure(forms: dict[str, Form], request: Request, ctx: Context, seconds: float) -> dict[str, float]:
    """Milliseconds of a run by name; the forms, which have run already, take turns, about `seconds` each.

    The lower quartile: what else the machine does only ever adds time. The first run of a turn is not counted: it finds
    the caches, and the threads, of the form before it (long runs do not feel that). Forms far behind drop out; close ones
    are measured for twice as long.
    """
    clock = time.perf_counter

    def timed(form: Form) -> float:
        start = clock()
        form.run(*request, ctx)
        return clock() - start

    times = {name: [timed(form)] for name, form in forms.items()}
    for name, form in forms.items():  # a first run after another form's may be twice as long, and must not decide
        times[name] = [min(times[name][0], timed(form))]
    left = dict(forms)
    slow = min(found[0] for found in times.values()) > seconds / 2
    turns: list[dict[str, float]] = []
    for turn in range(SLOW_TURNS if slow else 2 * TURNS):
        best = min(_quartile(times[name]) for name in left)
        if slow or turn < TURNS:
            left = {name: form for name, form in left.items() if min(times[name]) < BEHIND * best}
        else:
            left = {name: form for name, form in left.items() if _quartile(times[name]) < CLOSE * best}
        if len(left) == 1:
            break
        turns.append({})
        for name, form in left.items():
            if not slow:
                form.run(*request, ctx)
            count = 1 if slow else max(2, min(200, int(seconds / TURNS / max(times[name][0], 1e-6))))
            found = [timed(form) for _ in range(count)]
            times[name] += found
            turns[-1][name] = _quartile(found)
    pooled = {name: _quartile(found) * 1e3 for name, found in times.items()}
    return pooled if slow else {**pooled, **_by_turns(turns, left, min(pooled[name] for name in left))}


def _by_turns(turns: list[dict[str, float]], names: Iterable[str], best: float) -> dict[str, float]:
    """Milliseconds of the last ones by their ratios within each turn: a machine's speed moves more than they differ."""
    shared = [turn for turn in turns if all(name in turn for name in names)]
    if not shared:
        return {}
    ratio = {n: statistics.median(turn[n] / statistics.mean(turn[m] for m in names) for turn in shared) for n in names}
    return {name: best * ratio[name] / min(ratio.values()) for name in names}


def _quartile(times: list[float]) -> float:
    return statistics.quantiles(times, n=4)[0] if len(times) > 3 else min(times)


def _own(results: list[Result]) -> list[Result]:
    return [(v.clone() if isinstance(v, torch.Tensor) else v, lod) for v, lod in results]


def _distance(a: Signature, b: Signature) -> float:
    sizes = [math.prod([d for d in part if isinstance(d, int)][:-1] or [1]) for part in (*a, *b)]
    return sum(abs(math.log(max(x, 1) / max(y, 1))) for x, y in zip(sizes[: len(a)], sizes[len(a) :]))


def _text(signature: Signature) -> str:
    return ", ".join("x".join(str(d) for d in part[:-2]) + " " + part[-2].removeprefix("torch.") for part in signature)
