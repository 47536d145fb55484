"""`millstream inspect` on every model family: a page whose tags close, whose drawings are XML, and that loads nothing."""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

import millstream.fluid as fluid
from millstream.cli import main

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(TESTS, room) for room in ("programs", "passes", "oracle")]

from families import all_families  # noqa: E402
from firing import FIRED  # noqa: E402
from inference_models import save  # noqa: E402

QUICK = ("classify/vgg", "text/bigru_crf")
EMPTY = {"meta", "input", "br", "hr", "img", "link"}


class Tags(HTMLParser):
    """Fails where an element is closed that is not the innermost open one; collects what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.ids, self.refers = [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        if tag not in EMPTY:
            self.open.append(tag)
        self.handle_attrs(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        self.handle_attrs(tag, attrs)

    def handle_attrs(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.add(value)
            if name in ("src", "href", "xlink:href", "data", "action"):
                self.loads.append(value)
            self.refers.update(re.findall(r"url\(#([^)]+)\)", value or ""))
        if tag in ("link", "script", "iframe", "object", "embed"):
            self.loads += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()


@pytest.mark.filterwarnings("ignore:save_inference_model")
@pytest.mark.parametrize(
    "name,module,variant",
    [pytest.param(*f, id=f[0], marks=[] if f[0] in QUICK else [pytest.mark.slow]) for f in all_families()],
)
def test_page_of_a_family(tmp_path, capsys, name, module, variant):
    folder, out = str(tmp_path / "model"), tmp_path / "page.html"
    with fluid.scope_guard(fluid.Scope()):
        save(folder, module, variant)
    assert main(["inspect", folder, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    before, after, fired = FIRED[name]
    assert f"operators: {before} -> {after}" in said
    for kind, count in fired.items():
        assert re.search(rf"\b{kind} +{count}\b", said), kind
    page = out.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert not tags.open and page.lower().startswith("<!doctype html>")
    assert not [link for link in tags.loads if not link.startswith("#")] and "@import" not in page
    assert tags.refers <= tags.ids
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)
