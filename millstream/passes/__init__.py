"""Passes: changes of Programs that leave their results as they are."""

from millstream.passes._optimize import optimize
from millstream.passes._pass import find, program_pass, register, run, work_on
from millstream.passes._pattern import constant, either, maybe, node, value
from millstream.passes._rule import Match, Rule, body_match
from millstream.passes._uses import Uses
from millstream.passes._work import Work

__all__ = [
    "Match", "Rule", "Uses", "Work", "body_match", "constant", "either", "find", "maybe", "node", "optimize",
    "program_pass", "register", "run", "value", "work_on",
]  # fmt: skip
