"""Mistakes raise the class of exception that 1.8.5 raises, or one derived from it: `except X` of a program keeps working.

mistake_classes.json: what 1.8.5 raises for each of mistake_cases (those that it lets pass are not there).
"""

import builtins
import json
import os
import sys
import warnings

import numpy as np
import pytest

import millstream.fluid as fluid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import mistake_cases  # noqa: E402

with open(os.path.join(HERE, "mistake_classes.json")) as source:
    RECORDED = json.load(source)
# accidents of 1.8.5's own code before it looks at the argument, and one that many programs rely on here
OTHERWISE = {
    "batch_norm_rank": "IndexError of a tuple",
    "instance_norm_rank": "IndexError of a tuple",
    "softmax_with_ce_list": "'list' object has no attribute 'dtype'",
    "load_of_string": "asks for an executor, for which there is no need",
    "load_dygraph_missing": "is refused outside of guard(); here it is not, and the file is missing",
    "unknown_slot": "op.input of a slot that the operator does not have gives []",
}


@pytest.mark.parametrize("name", sorted(set(RECORDED) - set(OTHERWISE)))
def test_class(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = RECORDED[name]
    kind = getattr(fluid.core, wanted, None) or getattr(builtins, wanted)
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("ignore")
        mistake_cases.CASES[name](fluid, np, str(tmp_path))
    assert str(caught.value) or wanted == "EOFException", "an error says what is wrong"


def test_every_case_is_recorded():
    """Those that are not: 1.8.5 lets them pass, or dies."""
    assert RECORDED.keys() <= mistake_cases.CASES.keys() and len(RECORDED) > 250
    assert OTHERWISE.keys() <= RECORDED.keys()
