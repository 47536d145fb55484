"""row_loop against the same program run row by row under torch's autograd."""

import json

import numpy as np
import pytest
import torch

from millstream.errors import MillstreamError
from millstream.ops._opdef import REGISTRY
from millstream.ops._values import Ragged

ACTS = {0: lambda x: x, 1: torch.sigmoid, 2: torch.tanh, 3: torch.relu}


class Code:
    """Writes a program, as the pass does."""

    def __init__(self):
        self.values, self.steps, self.memories, self.outputs = [], [], [], []

    def value(self, kind, argument, width, space=0):
        self.values.append([kind, argument, width, space])
        return len(self.values)

    def made(self, name, ins, width, *parameters, space=0, out=None):
        out = self.value("made", None, width, space) if out is None else out
        self.steps.append([name, ins, out, list(parameters)])
        return out

    def view(self, whole, column, width, space=0):
        return self.value("view", [whole, column], width, space)

    def text(self):
        return json.dumps({"values": self.values, "steps": self.steps, "memories": self.memories, "outputs": self.outputs})

    def width(self, value):
        return self.values[value - 1][2]


def formed(const, form):
    if form in ("gates", "candidate"):
        d, flat = const.shape[0], const.reshape(-1)
        return flat[: 2 * d * d].view(d, 2 * d) if form == "gates" else flat[2 * d * d :].view(d, d)
    return const.t() if form == "transposed" else const


def one_step(code, given):
    """The values of one sequence's step; `given` holds those that are not made. Rows are [n, width]."""
    held = dict(given)

    def get(i):
        kind, argument, width, _space = code.values[i - 1]
        if kind == "view":
            return get(argument[0])[:, argument[1] : argument[1] + width]
        return held[i]

    parts = {}
    for name, ins, out, p in code.steps:
        a, *rest = (get(i) for i in ins)
        b = rest[0] if rest else None
        if name == "product":
            new = a @ b + (rest[1] if len(rest) > 1 else 0)
        elif name == "copy":
            new = a
        elif name in ("add", "sub", "mul", "div"):
            new = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div}[name](a, b)
        elif name == "scale":
            new = a * p[0] + p[1]
        elif name == "act":
            new = ACTS[p[0]](a)
        elif name == "scale_rows":
            new = a * b
        elif name == "dot_rows":
            new = (a * b).sum(1, keepdim=True)
        elif name == "spread":
            rows = next(v for i, v in given.items() if code.values[i - 1][3] == code.values[out - 1][3] and v.dim() == 2)
            new = a.expand(len(rows), -1)
        elif name == "gather":
            n = max(len(a), 1)
            new = a.sum(0, keepdim=True) / {0: 1, 1: n, 2: n**0.5}[p[0] if p else 0]
        elif name == "kept_dot":
            new = b @ a.t()
        elif name == "kept_sum":
            new = a.t() @ b
        elif name == "softmax":
            new = torch.softmax(a, 1)
        else:
            new = torch.softmax(a, 0)
        kind, argument = code.values[out - 1][:2]
        if kind == "view":  # its whole is put together of views
            parts.setdefault(argument[0], {})[argument[1]] = new
            held[argument[0]] = torch.cat([parts[argument[0]][c] for c in sorted(parts[argument[0]])], 1)
        else:
            held[out] = new
    return get


def expected(code, steps, statics, inits, consts, lengths, cuts):
    outs = [[] for _ in code.outputs]
    start = 0
    for s, length in enumerate(lengths):
        held = {}
        for i, (kind, argument, _width, space) in enumerate(code.values, 1):
            if kind == "static":
                rows = slice(cuts[s], cuts[s + 1]) if space else slice(s, s + 1)
                held[i] = statics[argument][rows]
            elif kind == "init":
                which, ranked = argument
                row = sorted(range(len(lengths)), key=lambda k: -lengths[k]).index(s) if ranked else s
                held[i] = inits[which][row : row + 1]
            elif kind == "line":
                held[i] = consts[argument].reshape(1, -1)
            elif kind == "matrix":
                held[i] = formed(consts[argument[0]], argument[1])
        for m, _becomes, init in code.memories:
            held[m] = held[init] if isinstance(init, int) else torch.full((1, code.width(m)), init)
        for t in range(length):
            for i, (kind, argument, _w, _s) in enumerate(code.values, 1):
                if kind == "step":
                    held[i] = steps[argument][start + t : start + t + 1]
            get = one_step(code, held)
            for k, o in enumerate(code.outputs):
                outs[k].append(get(o))
            held.update([(m, get(becomes)) for m, becomes, _ in code.memories])
        start += length
    return [torch.cat(o) if o else torch.zeros(0, code.width(v)) for o, v in zip(outs, code.outputs)]


def lstm(width=20, inner=24):
    """An LSTM of four separate gates over x [rows, width]."""
    c = Code()
    x, h, cell = c.value("step", 0, width), c.value("memory", None, inner), c.value("memory", None, inner)
    consts, gates = [], []
    for k in range(4):
        wx = c.value("matrix", [len(consts), "plain", width], inner)
        wh = c.value("matrix", [len(consts) + 1, "plain", inner], inner)
        bias = c.value("line", len(consts) + 2, inner)
        consts += [(width, inner), (inner, inner), (inner,)]
        total = c.made("add", [c.made("product", [x, wx, bias], inner), c.made("product", [h, wh], inner)], inner)
        gates.append(c.made("act", [total], inner, 2 if k == 3 else 1))
    new = c.made("add", [c.made("mul", [gates[0], cell], inner), c.made("mul", [gates[1], gates[3]], inner)], inner)
    out = c.made("mul", [gates[2], c.made("act", [new], inner, 2)], inner)
    first = c.value("init", [0, True], inner)
    c.memories, c.outputs = [[h, out, 0.5], [cell, new, first]], [out]
    return c, [width], [], [inner], consts


def gru(width=7):
    """gru_unit's formula with views of one value, the input made of two parts, and a second output."""
    c = Code()
    x, h = c.value("step", 0, 2 * width), c.value("memory", None, width)
    y = c.value("step", 1, width)
    whole = c.value("made", None, 3 * width, 0)
    c.made("copy", [x], 2 * width, out=c.view(whole, 0, 2 * width))
    c.made("scale", [y], width, 0.5, 0.25, out=c.view(whole, 2 * width, width))
    gates = c.made("product", [h, c.value("matrix", [0, "gates", width], 2 * width)], 2 * width)
    gates = c.made("act", [c.made("add", [gates, c.view(whole, 0, 2 * width)], 2 * width)], 2 * width, 1)
    u, r = c.view(gates, 0, width), c.view(gates, width, width)
    candidate = c.made("product", [c.made("mul", [r, h], width), c.value("matrix", [0, "candidate", width], width)], width)
    candidate = c.made("act", [c.made("add", [candidate, c.view(whole, 2 * width, width)], width)], width, 2)
    hidden = c.made("add", [h, c.made("mul", [u, c.made("sub", [candidate, h], width)], width)], width)
    soft = c.made("softmax", [hidden], width)
    c.memories, c.outputs = [[h, hidden, c.value("init", [0, False], width)]], [hidden, soft]
    return c, [2 * width, width], [], [width], [(width, 3 * width)]


def attention(width=9, inner=18):
    """A state that attends to rows of its own sequence."""
    c = Code()
    x, h = c.value("step", 0, width), c.value("memory", None, inner)
    keys, kept = c.value("static", 0, inner, 1), c.value("static", 1, width, 1)
    shared = c.value("static", 2, inner, 0)
    query = c.made("product", [h, c.value("matrix", [0, "transposed", inner], inner)], inner)
    mixed = c.made("add", [keys, c.made("spread", [query], inner, space=1)], inner, space=1)
    mixed = c.made("act", [mixed], inner, 2, space=1)
    score = c.made("dot_rows", [mixed, c.value("line", 1, inner)], 1, space=1)
    weight = c.made("part_softmax", [score], 1, space=1)
    context = c.made("gather", [c.made("scale_rows", [kept, weight], width, space=1)], width, 0)
    mean = c.made("gather", [mixed], inner, 1)
    joined = c.made("add", [c.made("add", [x, context], width), c.value("line", 2, width)], width)
    new = c.made("product", [joined, c.value("matrix", [3, "plain", width], inner)], inner)
    new = c.made("mul", [c.made("add", [new, mean], inner), shared], inner)
    new = c.made(
        "div", [c.made("act", [new], inner, 2), c.made("scale", [c.made("act", [h], inner, 1)], inner, 1.0, 1.0)], inner
    )
    new = c.made("mul", [new, c.value("line", 4, inner)], inner)
    new = c.made("act", [c.made("sub", [new, c.value("line", 5, inner)], inner)], inner, 3)
    c.memories, c.outputs = [[h, new, 0.1]], [new]
    sizes = [(inner, inner), (inner, 1), (width,), (width, inner), (inner,), (inner,)]
    return c, [width], [inner, width, inner], [], sizes


def dotted(width=9, inner=18):
    """A state that attends to rows of its own sequence by products, and to rows that the step makes."""
    c = Code()
    x, h = c.value("step", 0, inner), c.value("memory", None, inner)
    keys, kept = c.value("static", 0, inner, 1), c.value("static", 1, width, 1)
    weight = c.made("part_softmax", [c.made("kept_dot", [h, keys], 1, space=1)], 1, space=1)
    context = c.made("kept_sum", [weight, kept], width)
    made = c.made("act", [c.made("add", [keys, c.made("spread", [x], inner, space=1)], inner, space=1)], inner, 2, space=1)
    again = c.made("kept_sum", [c.made("kept_dot", [x, made], 1, space=1), made], inner)
    new = c.made("product", [context, c.value("matrix", [0, "plain", width], inner)], inner)
    new = c.made("act", [c.made("add", [c.made("add", [new, x], inner), again], inner)], inner, 2)
    c.memories, c.outputs = [[h, new, 0.1]], [new, context]
    return c, [inner], [inner, width], [], [(width, inner)]


def delayed(width=4):
    """Memories of a step input, and of another memory; one is not read."""
    c = Code()
    x, late, later, idle = (c.value(k, 0 if k == "step" else None, width) for k in ("step", "memory", "memory", "memory"))
    first, second = c.made("copy", [x], width), c.made("copy", [late], width)
    out = c.made("mul", [c.made("add", [x, late], width), later], width)
    c.memories, c.outputs = [[late, first, 1.0], [later, second, 2.0], [idle, out, 0.0]], [out]
    return c, [width], [], [], []


PROGRAMS = {"lstm": lstm, "gru": gru, "attention": attention, "dotted": dotted, "delayed": delayed}
BATCHES = {"ragged": [3, 1, 5, 2, 5], "one": [4], "empty among others": [0, 3, 0, 1], "all empty": [0, 0]}


@pytest.mark.parametrize("batch", list(BATCHES))
@pytest.mark.parametrize("name", list(PROGRAMS))
@pytest.mark.parametrize("parts", [1, 2])
def test_against_autograd(name, batch, parts, monkeypatch):
    monkeypatch.setattr("millstream.kernels.threads.parts", lambda work, most: max(1, min(parts, most)))
    code, step_widths, static_widths, init_widths, const_shapes = PROGRAMS[name]()
    lengths = BATCHES[batch]
    torch.manual_seed(0)
    rows, n = sum(lengths), len(lengths)
    cuts = np.concatenate(([0], np.cumsum([(3 * k) % 4 + 1 for k in range(n)])))
    lod, static_lod = (np.concatenate(([0], np.cumsum(lengths))),), (cuts,)
    dense = [all(k != "static" or a != i or s == 0 for k, a, _w, s in code.values) for i in range(len(static_widths))]
    steps = [torch.randn(rows, w, requires_grad=True) for w in step_widths]
    statics = [torch.randn(n if d else int(cuts[-1]), w, requires_grad=True) for w, d in zip(static_widths, dense)]
    inits = [torch.randn(n, w, requires_grad=True) for w in init_widths]
    consts = [(0.4 * torch.randn(*s)).requires_grad_() for s in const_shapes]
    outs = expected(code, steps, statics, inits, consts, lengths, cuts)
    douts = [torch.randn_like(o) for o in outs]
    leaves = [*steps, *statics, *inits, *consts]
    wanted = [torch.zeros_like(v) for v in leaves]
    if rows:
        found = torch.autograd.grad(outs, leaves, douts, allow_unused=True)
        wanted = [w if g is None else g for w, g in zip(wanted, found)]

    forward, backward = REGISTRY.get("row_loop").kernel, REGISTRY.get("row_loop_grad").kernel
    args = (
        [Ragged(s.detach(), lod) for s in steps],
        [Ragged(s.detach(), () if d else static_lod) for s, d in zip(statics, dense)],
        [i.detach() for i in inits],
        [c.detach() for c in consts],
        None,
    )
    attrs = {"code": code.text(), "widths": [code.width(o) for o in code.outputs]}
    given, tape = forward(*args, **attrs, train=True)
    plain, nothing = forward(*args, **attrs)
    assert nothing is None
    for out, again, want in zip(given, plain, outs):
        np.testing.assert_allclose(out.values, want.detach(), rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(again.values, out.values)
        assert out.lod == lod
    grads = [g for group in backward(*args, tape, douts, **attrs, train=True) for g in group]
    for k, (grad, want) in enumerate(zip(grads, wanted, strict=True)):
        np.testing.assert_allclose(grad, want, rtol=2e-4, atol=5e-6, err_msg=str(k))


def _wrong(steps=None, statics=None):
    """What row_loop says to `attention`'s program with other step and static inputs."""
    code, widths, static_widths, _, shapes = attention()
    lod, kept = (np.array([0, 2, 3]),), (np.array([0, 1, 4]),)
    given = [Ragged(torch.zeros(4 if s else 2, w), kept if s else ()) for w, s in zip(static_widths, (1, 1, 0))]
    for i, value in (statics or {}).items():
        given[i] = value
    args = (
        [Ragged(torch.zeros(3, widths[0]), lod)] if steps is None else steps,
        given,
        [],
        [torch.zeros(*s) for s in shapes],
    )
    REGISTRY.get("row_loop").kernel(*args, None, code=code.text(), widths=[code.width(o) for o in code.outputs])


WRONG = {
    "levels": ({"steps": [Ragged(torch.zeros(3, 9), ())]}, "step input must have one LoD level, received 0"),
    "widths": ({"steps": [Ragged(torch.zeros(3, 8), (np.array([0, 3, 3]),))]}, "expected rows of 9 numbers, received shape"),
    "other sequences": (
        {"steps": [Ragged(torch.zeros(3, 9), (np.array([0, 2, 3]),)), Ragged(torch.zeros(3, 9), (np.array([0, 1, 3]),))]},
        "must have the same sequences",
    ),
    "sequences kept": (
        {"statics": {0: Ragged(torch.zeros(4, 18), (np.array([0, 4]),))}},
        "must have 2 sequences at one LoD",
    ),
    "rows kept": ({"statics": {2: Ragged(torch.zeros(3, 18), ())}}, "one row for each of 2 sequences; it has 3"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_wrong_rows(case):
    given, message = WRONG[case]
    with pytest.raises(MillstreamError, match=message):
        _wrong(**given)


@pytest.mark.parametrize("shape", [[3, 4, 18], [2, 4, 17], [2, 3, 18]])
def test_wrong_padded_rows(shape):
    """Keys of another batch, width or number of rows than the padded values [2, 4, 9]."""
    code, widths, _, _, shapes = dotted()
    statics = [Ragged(torch.zeros(2, 4, 9), ()), Ragged(torch.zeros(*shape), ())]
    code.values = [[k, 1 - a if k == "static" else a, w, s] for k, a, w, s in code.values]
    steps, consts = [Ragged(torch.zeros(6, widths[0]), ())], [torch.zeros(*s) for s in shapes]
    attrs = {"code": code.text(), "widths": [code.width(o) for o in code.outputs]}
    with pytest.raises(MillstreamError, match="received shape"):
        REGISTRY.get("row_loop").kernel(steps, statics, [], consts, torch.zeros(3, 2, 18), **attrs)
