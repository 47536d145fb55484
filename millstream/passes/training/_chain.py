"""What ends in a relu, perhaps behind a sum, and its gradients: may one operator each way stand in their place?"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.passes._uses import Uses
from millstream.passes._work import Work
from millstream.passes.training._places import taken, why_needed


@dataclass
class Chain:
    """Positions of the operators; `add` and `add_grad` are None where nothing is added.

    `first` makes what the sum, or the relu, takes; `mine` is the slot of elementwise_add that takes it.
    """

    first: int
    relu: int
    relu_grad: int
    first_grad: int
    add: int | None = None
    add_grad: int | None = None
    mine: str = "X"

    def forward(self) -> list[int]:
        return [p for p in (self.first, self.add, self.relu) if p is not None]

    def backward(self) -> list[int]:
        return [p for p in (self.relu_grad, self.add_grad, self.first_grad) if p is not None]

    @property
    def other(self) -> str:
        return "Y" if self.mine == "X" else "X"


def not_alike(work: Work, uses: Uses, at: int) -> str | None:
    """Why the operands of a sum may differ in shape."""
    add = uses.ops[at]
    x, y = (work.block._find_var_recursive(add.input(slot)[0]) for slot in ("X", "Y"))
    if x is None or y is None or not x.has_shape or not y.has_shape or tuple(x.shape) != tuple(y.shape):
        return "what is added may have another shape"
    if any(d < 0 for d in x.shape[1:]) or x.dtype != y.dtype or add.input("X") == add.input("Y"):
        return "what is added may have another shape, or is of another type"
    if x.shape[0] < 0:
        first, second = (uses.origins(add.input(slot)[0], at) for slot in ("X", "Y"))
        if first != second:
            return "what is added may have a batch of its own: it comes from other feeds"
    return None


def through_sum(uses: Uses, gradient: str, mine: str) -> tuple[int, str] | None:
    """(position of the elementwise_add_grad that alone reads `gradient`, the gradient of its operand `mine`), or None."""
    at = uses.reader(gradient, "elementwise_add_grad", "Out@GRAD")
    return None if at is None or not (found := uses.ops[at].output(mine + "@GRAD")) else (at, found[0])


def why_apart(uses: Uses, chain: Chain, made: str) -> str | None:
    """Why the operators can't become one each way; `made`: the slot in which the first one gives its result."""
    ops = uses.ops
    inside = [ops[chain.first].output(made)[0], ops[chain.relu_grad].output("X@GRAD")[0]]
    if chain.add is not None and chain.add_grad is not None:
        inside += [ops[chain.add].output("Out")[0], ops[chain.add_grad].output(chain.mine + "@GRAD")[0]]
    return why_needed(uses, chain, inside) or _moved(uses, chain)


def _moved(uses: Uses, chain: Chain) -> str | None:
    """Why the forwards can't wait for relu, or the gradients can't stand where relu's stands."""
    ops = uses.ops
    mine = set(taken(chain))
    if len(uses.writers[ops[chain.relu].output("Out")[0]]) > 1:
        return f"{ops[chain.relu].output('Out')[0]!r} is written elsewhere too"
    for first, last, names in (
        (chain.first, chain.relu, ops[chain.first].input_arg_names),
        (chain.relu_grad, chain.first_grad, ops[chain.first_grad].input_arg_names),
    ):
        changed = uses.written_between([n for n in names if not set(uses.writers[n]) <= mine], first, last)
        if changed is not None:
            return f"{changed!r} is overwritten in between"
    early, late = (chain.first, chain.relu), (chain.relu_grad, chain.first_grad)
    for p, (first, last) in ((chain.first, early), (chain.first_grad, late), (chain.add_grad, late)):
        touched = None if p is None else uses.touched_between(ops[p].output_arg_names, first, last, mine)
        if touched is not None:
            return f"{touched!r} is read or written in between"
    return None
