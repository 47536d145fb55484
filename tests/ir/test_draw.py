"""Pictures of Programs: well-formed SVG, nothing left out, nothing overlapping."""

import pathlib
import random
import time
import xml.etree.ElementTree as ET

import pytest

from millstream.ir import Program, VarType, library
from millstream.ir.draw import program_svg
from millstream.ir.layering import Box, Edge, arrange
from millstream.ir.proto import program_from_bytes

RECORDED = pathlib.Path(__file__).parents[1] / "files" / "recorded"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _no_library(monkeypatch):
    monkeypatch.setattr(library._Installed, "library", None)


def _drawn(program: Program) -> ET.Element:
    return ET.fromstring(program_svg(program))


def _texts(root: ET.Element, style: str = "type") -> list[str]:
    return [t.text for t in root.iter(f"{SVG}text") if t.get("class") == style]


@pytest.mark.parametrize("name", ["__model__", "train.pdmodel", "startup.pdmodel", "while.pdmodel"])
def test_every_operator_is_there_once(name):
    program = program_from_bytes((RECORDED / name).read_bytes())
    texts = [t for t in _texts(_drawn(program)) if not t.startswith("block ")]
    assert sorted(texts) == sorted(op.type for block in program.blocks for op in block.ops)


def test_edges_say_what_flows():
    root = _drawn(program_from_bytes((RECORDED / "__model__").read_bytes()))
    flows = [g.find(f"{SVG}title").text for g in root.iter(f"{SVG}g") if g.get("class") == "flow"]
    assert "fc_0.tmp_0: float32[-1, 2] -> elementwise_add.X" in flows
    assert "embedding_0.w_0: float32[5, 3] -> lookup_table.W" in flows
    assert "ids: int64[-1, 1] lod=1 -> lookup_table.Ids" in flows


def test_parameters_are_shaded_and_roles_coloured():
    root = _drawn(program_from_bytes((RECORDED / "train.pdmodel").read_bytes()))
    styles = [r.get("class") for r in root.iter(f"{SVG}rect")]
    assert styles.count("parameter") == 1 + 3  # the legend's, two of fc, one of embedding
    assert styles.count("data") == 1 + 2
    assert styles.count("op optimize") == 1 + 3
    assert styles.count("op backward") == 1 + 10


def test_sub_blocks_stand_in_frames_inside_their_operator():
    program = program_from_bytes((RECORDED / "while.pdmodel").read_bytes())
    root = _drawn(program)
    frames = [r.get("class") for r in root.iter(f"{SVG}rect") if r.get("class", "").startswith("frame")]
    assert frames == ["frame", "frame inner", "frame inner"]
    assert {"block 1 in block 0: 5 operators", "block 2 in block 0: 4 operators"} <= set(_texts(root))


def test_empty_programs_and_unreached_blocks():
    program = Program()
    assert _texts(_drawn(program)) == ["block 0: 0 operators"]
    program._create_block()
    assert _texts(_drawn(program)) == ["block 0: 0 operators", "block 1 in block 0: 0 operators"]


def test_names_that_xml_can_not_hold():
    program = Program()
    block = program.global_block()
    block.create_var(name="<a&\x01\"'", shape=[1], dtype="float32")
    block.append_op(type="t<&", inputs={"X": ["<a&\x01\"'", "undeclared"]}, outputs={"Out": ["]]>"]}, attrs={"a": "\x02"})
    root = _drawn(program)
    assert "t<&" in _texts(root)
    assert any("<a&\N{REPLACEMENT CHARACTER}" in (t.text or "") for t in root.iter(f"{SVG}text"))


def test_in_place_and_repeated_names():
    program = Program()
    block = program.global_block()
    for name in ("x", "y"):
        block.create_var(name=name, shape=[1], dtype="float32", type=VarType.LOD_TENSOR)
    block.append_op(type="a", inputs={"X": ["x", "x"]}, outputs={"Out": ["x"]})
    block.append_op(type="b", inputs={"X": ["x"], "Y": ["x"]}, outputs={"Out": ["y"]})
    flows = [g.find(f"{SVG}title").text for g in _drawn(program).iter(f"{SVG}g") if g.get("class") == "flow"]
    assert flows == ["x: float32[1] -> a.X", "x: float32[1] -> b.X\nx: float32[1] -> b.Y"]


def test_boxes_never_overlap_and_edges_go_down():
    rng = random.Random(1)
    for _ in range(20):
        boxes = [Box(rng.uniform(20, 200), rng.uniform(10, 90)) for _ in range(40)]
        edges = [Edge(s, t, weak=rng.random() < 0.2) for s in range(40) for t in range(s + 1, 40) if rng.random() < 0.05]
        width, height = arrange(boxes, edges)
        for edge in edges:
            assert boxes[edge.source].y + boxes[edge.source].height < boxes[edge.target].y
        for n, a in enumerate(boxes):
            assert a.x >= -1e-6 and a.x + a.width <= width + 1e-6 and a.y >= 0 and a.y + a.height <= height + 1e-6
            for b in boxes[n + 1 :]:
                apart = a.x + a.width <= b.x + 1e-6 or b.x + b.width <= a.x + 1e-6
                assert apart or a.y + a.height <= b.y or b.y + b.height <= a.y


def test_a_large_program_takes_seconds_at_most():
    program = Program()
    block = program.global_block()
    block.create_var(name="v0", shape=[-1, 64], dtype="float32")
    for n in range(1, 1001):
        block.create_var(name=f"v{n}", shape=[-1, 64], dtype="float32")
        inputs = {"X": [f"v{n - 1}"], "Y": [f"v{max(0, n - 7)}"]}
        block.append_op(type="elementwise_add", inputs=inputs, outputs={"Out": [f"v{n}"]})
    start = time.perf_counter()
    root = _drawn(program)
    assert time.perf_counter() - start < 20
    assert _texts(root).count("elementwise_add") == 1000
