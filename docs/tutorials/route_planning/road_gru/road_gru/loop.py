"""The pass ``fuse_road_gru``: a StaticRNN whose step is a GRU with attention over road links -> the operator road_gru."""

import torch

from millstream.ir.operator import Operator
from millstream.passes import Work, body_match, constant, node, value


def affine(gate, hidden):
    """[x, links'] W + hidden U + b of one gate."""
    product = node("mul", X=JOINT, Y=constant(f"w_{gate}"))
    state = node("mul", X=hidden, Y=constant(f"u_{gate}"))
    return node("elementwise_add", X=node("elementwise_add", X=product, Y=state), Y=constant(f"b_{gate}"))


# The step, from what it reads to what it leaves: one line an expression. A node that is used twice is one operator.
H, LINKS = value("h"), value("links")
QUERY = node("unsqueeze2", "column", X=node("mul", X=H, Y=constant("query")))
SCORES = node("squeeze2", "scored", X=node("matmul", "scores", X=LINKS, Y=QUERY))
SHARES = node("unsqueeze2", "row", X=node("softmax", "softmax", X=SCORES))
CONTEXT = node("squeeze2", "context", X=node("matmul", "mixed", X=SHARES, Y=LINKS))
JOINT = node("concat", "joint", X=(value("x"), CONTEXT))
UPDATE = node("sigmoid", X=affine("update", H))
RESET = node("elementwise_mul", X=node("sigmoid", X=affine("reset", H)), Y=H)
CANDIDATE = node("tanh", X=affine("candidate", RESET))
REST = node("elementwise_mul", X=node("scale", "rest", X=UPDATE), Y=CANDIDATE)
STEP = node("elementwise_add", "new", X=node("elementwise_mul", X=UPDATE, Y=H), Y=REST)

GATES = ("update", "reset", "candidate")
HANDING_ON = frozenset({"rnn_memory_helper"})


def fuse_road_gru(work: Work) -> int:
    """Counts loops replaced."""
    changes = 0
    for at, loop in enumerate(work.block.ops):
        if loop.type != "recurrent":
            continue
        match = body_match(work, loop.sub_blocks()[0], STEP, HANDING_ON)
        why = "its step is not a GRU with attention over links" if match is None else why_not(work, loop, match)
        if why is not None:
            work.refuse("fuse_road_gru", loop, why)
            continue
        work.block.ops[at] = build(work, loop, match)
        changes += 1
    if changes:
        work.program._touch()
    return changes


def why_not(work, loop, match):
    """What in a step of the right form, or around it, is not what road_gru computes; None when all is."""
    names, handed_on = match.names, {}
    for op in match.block.ops:
        if op.type in HANDING_ON:
            handed_on[op.output("Out")[0]] = op.input("X")[0]
    new = match["new"].output("Out")[0]
    if [handed_on.get(n, n) for n in (*loop.attr("states"), *loop.output("outputs"))] != [new, new]:
        return "it has other states or outputs than the new state"
    if loop.attr("ex_states") != [names["h"]] or loop.input("inputs") != [names["x"]] or loop.attr("reverse"):
        return "it runs backwards, or over other inputs"
    if match["rest"].attr("scale") != -1.0 or match["rest"].attr("bias") != 1.0:
        return "the rest of the update gate is not 1 - u"
    plain = all(not match[n].attr("transpose_X") and not match[n].attr("transpose_Y") for n in ("scores", "mixed"))
    if not plain or match["scores"].attr("alpha") != 1.0 or match["mixed"].attr("alpha") != 1.0:
        return "the attention transposes or scales"
    along = {"column": [2], "scored": [2], "row": [1], "context": [1]}
    if any(match[n].attr("axes") != axes for n, axes in along.items()) or match["softmax"].attr("axis") not in (-1, 1):
        return "the attention goes along another dim"
    if match["joint"].attr("axis") != 1:
        return "inputs and links are joined along another dim"
    stored = [names["query"], *(names[f"{kind}_{gate}"] for kind in "wub" for gate in GATES)]
    if any(work.value(n) is None for n in stored):
        return "the values of the parameters are not known"
    return None


def build(work, loop, match):
    """The operator; the parameters of the three gates become four matrices that it reads in order."""
    names = match.names
    w, u, b = ([work.value(names[f"{kind}_{gate}"]) for gate in GATES] for kind in "wub")
    joint = torch.cat(w, 1)
    features = match.shape(names["x"])[1]
    stored = {
        "Query": work.value(names["query"]), "WeightX": joint[:features], "WeightLink": joint[features:],
        "WeightH": torch.cat(u[:2], 1), "WeightC": u[2], "Bias": torch.cat([part.reshape(-1) for part in b]),
    }  # fmt: skip
    inputs = {slot: [work.store(f"road_gru.{slot}", part)] for slot, part in stored.items()}
    inputs.update({"X": loop.input("inputs"), "Links": [names["links"]], "State": loop.input("initial_states")})
    return Operator(work.block, "road_gru", inputs, {"Out": loop.output("outputs")}, {}, loop.site)
