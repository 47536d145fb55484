"""Small Programs of real model families on millstream against their recordings from PaddlePaddle 1.8.5."""

import json
import os

import numpy as np
import pytest
from millstream import fluid

from families import HERE, all_families, run_family
from replay import difference

SLOW = ()
# How the gradient of a gradient is spelled in operators is an implementation's own business.
SECOND_GRADIENTS = ("gan/wgan_gp",)
FAMILIES = [
    pytest.param(*family, id=family[0], marks=[pytest.mark.slow] if family[0].startswith(SLOW) else [])
    for family in all_families()
]
with open(os.path.join(HERE, "recorded", "families.json")) as source:
    FACTS = json.load(source)


@pytest.mark.parametrize("name,module,variant", FAMILIES)
def test_family(name, module, variant):
    want = np.load(os.path.join(HERE, "recorded", name.replace("/", ".") + ".npz"), allow_pickle=False)
    facts, result = FACTS[name], run_family(fluid, module, variant)
    assert result.facts["parameters"] == facts["parameters"]
    if name not in SECOND_GRADIENTS:
        assert result.facts["forward_ops"] == facts["forward_ops"]
    assert result.facts["initial"] == facts["initial"], "the initial values are not those of the recording"
    np.testing.assert_allclose(result.losses, want["loss"], rtol=1e-4, err_msg="losses")
    found = [difference(key, result.arrays[key], want[key], 1e-3) for key in want.files if key != "loss"]
    assert not [line for line in found if line], "\n".join(line for line in found if line)
    lods = {k: [list(level) for level in v] for k, v in result.lods.items() if v}
    assert lods == facts["lods"]
