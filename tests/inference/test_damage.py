"""Damaged program files through millstream.load and a run: an error of ours that names the file or operator, or a result."""

import pathlib
import resource
import shutil
import warnings

import numpy as np
import pytest
from corruption import damaged

import millstream
from millstream.errors import MillstreamError

INPUTS = {
    "image_model": (np.ones((1, 3, 16, 16), "float32"),),
    "text_model": ([[1, 2, 3]], np.ones((1, 4), "float32")),
}


def outcomes(folder, inputs, count, seed):
    """How many damaged versions were refused and how many ran; any other exception is raised."""
    data = (folder / "__model__").read_bytes()
    seen = {"refused": 0, "ran": 0}
    for version in damaged(data, count, seed):
        (folder / "__model__").write_bytes(version)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                millstream.load(folder).run(*inputs)
            seen["ran"] += 1
        except MillstreamError as error:
            assert str(error)
            seen["refused"] += 1
    return seen


@pytest.mark.parametrize("name", list(INPUTS))
@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_programs(name, count, request, tmp_path):
    folder = pathlib.Path(shutil.copytree(request.getfixturevalue(name), tmp_path / "model"))
    millstream.load(folder).run(*INPUTS[name])  # kernels are compiled before memory counts
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = outcomes(folder, INPUTS[name], count, 7)
    assert seen["refused"] > count // 3 and sum(seen.values()) == count, seen
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB
