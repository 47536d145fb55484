"""Whole programs on millstream against their recordings from PaddlePaddle 1.8.5: names, shapes, losses, parameters."""

import pytest
from millstream import fluid

from program_model import Built, all_programs
from replay import BLOCK_GRADIENTS, compare_statistics, recorded_arrays, recorded_facts, run_program

PROGRAMS = all_programs()
FACTS = recorded_facts()
every_program = pytest.mark.parametrize("name,module,variant", PROGRAMS, ids=[p[0] for p in PROGRAMS])


# 1.8.5 reuses the forward operator as its own gradient; gradients carry no LoD here, so these have one of their own.
SPELLING = {"cumsum_grad": "cumsum", "sequence_reverse_grad": "sequence_reverse"}


def missing_and_extra(got, want):
    return {"missing": sorted(set(want) - set(got)), "extra": sorted(set(got) - set(want))}


@every_program
def test_names(name, module, variant):
    built, facts = Built(fluid, module, variant), FACTS[name]
    assert built.parameters == facts["parameters"]
    same = {"missing": [], "extra": []}
    assert missing_and_extra(built.persistables, facts["persistables"]) == same
    assert built.forward_ops == facts["forward_ops"]
    if name.startswith(BLOCK_GRADIENTS):
        return
    assert missing_and_extra(built.variables, facts["variables"]) == same
    assert [[SPELLING.get(op, op) for op in ops] for ops in built.all_ops] == facts["all_ops"]


@every_program
def test_values(name, module, variant):
    arrays, facts = recorded_arrays(name), FACTS[name]
    if any(key.startswith("stat.") for key in arrays.files):
        differences = compare_statistics(fluid, module, variant, arrays)
    else:
        differences = run_program(fluid, module, variant, arrays, facts)
    assert not differences, "\n".join(differences)
