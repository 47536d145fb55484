"""Packages that bring operators and passes by entry points; the tutorial that does it."""

import os
import subprocess
import sys

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream import passes
from millstream.errors import UnknownOperatorError
from millstream.ops import REGISTRY
from millstream.passes import _pass

TUTORIAL = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "tutorials", "route_planning", "route_planning.py")
MODULE = '''
import torch
from millstream.ops import op
from millstream.passes import Rule, node, value

@op("plugged_softer", slots="X -> Out", infer="X", lod="X")
def plugged_softer(x):
    """log(1 + exp(x))."""
    return torch.nn.functional.softplus(x)

pattern = node("log", X=node("scale", "plus", X=node("exp", "exp", X=value("x"))))

def why_not(found):
    return None if found["plus"].attr("bias") == 1.0 == found["plus"].attr("scale") else "not 1 + exp"

def build(found):
    return found.make("plugged_softer", {"X": [found.names["x"]]}, {"Out": found.ops[-1].output("Out")})

fuse = Rule("fuse_plugged", pattern, why_not, build)
'''
POINTS = """[millstream.operators]
plugged_softer = plugged_example:plugged_softer
plugged_missing = plugged_example:pattern
[millstream.passes]
fuse_plugged = plugged_example:fuse
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(_pass, "_PASSES", dict(_pass._PASSES))
    monkeypatch.setattr(REGISTRY, "_defs", dict(REGISTRY._defs))
    (tmp_path / "plugged_example.py").write_text(MODULE)
    info = tmp_path / "plugged_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("plugged_example", None)


def test_operator_and_pass_of_a_package(package):
    main = fluid.Program()
    with fluid.program_guard(main):
        x = fluid.data("x", [None, 3])
        out = fluid.layers.log(fluid.layers.exp(x) + 1.0)
        other = fluid.layers.log(fluid.layers.exp(x) + 2.0)
    work = passes.optimize(main, ["x"], [out.name, other.name], None, ("fuse_plugged",), check=True)
    assert work.counts() == {"fuse_plugged": 1} and "fuse_plugged refused exp" in work.explain()
    feed = {"x": np.linspace(-2, 2, 6, dtype="float32").reshape(2, 3)}
    exe = fluid.Executor()
    want, got = (exe.run(p, feed=feed, fetch_list=[out.name])[0] for p in (main, work.program))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    again = fluid.Program.parse_from_string(work.program.desc.serialize_to_string())
    np.testing.assert_allclose(exe.run(again, feed=feed, fetch_list=[out.name])[0], want, rtol=1e-5)


def test_an_operator_by_name_imports_its_package(package):
    main = fluid.Program()
    with fluid.program_guard(main):
        x = fluid.data("x", [None, 3])
        out = main.global_block().create_var(name="out")
        main.global_block().append_op(type="plugged_softer", inputs={"X": x}, outputs={"Out": out})
    assert out.shape == (-1, 3)


def test_an_entry_point_without_its_operator_is_named(package):
    with pytest.raises(UnknownOperatorError, match="'plugged_example:pattern' for operator 'plugged_missing'"):
        REGISTRY.find("plugged_missing")
    assert REGISTRY.find("plugged_by_nobody") is None


@pytest.mark.slow
def test_tutorial():
    done = subprocess.run([sys.executable, TUTORIAL, "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fuse_road_gru made 1 change" in done.stdout and "faster" in done.stdout
