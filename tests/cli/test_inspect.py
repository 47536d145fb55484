"""`millstream inspect`: text, an HTML page that needs nothing else, errors without a traceback."""

import re
from html.parser import HTMLParser

import pytest

import millstream.fluid as fluid
from millstream.cli import main
from millstream.fluid import layers


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "net"
    program, startup = fluid.Program(), fluid.Program()
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(program, startup):
        x = fluid.data("x", [None, 3, 8, 8])
        y = layers.batch_norm(layers.conv2d(x, 4, 3), act="relu", is_test=True)
        weights = layers.softmax(layers.matmul(y, y, transpose_y=True))
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(folder), ["x"], [layers.matmul(weights, y), weights], exe, main_program=program)
    return folder


def test_page_and_text(model, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["inspect", str(model), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "operators: 9 -> 4" in text and re.search(r"fold_conv_bn +1", text) and re.search(r"batch_norm +1 +0", text)
    assert not re.search(r"fuse_seqconv_relu +0", text) and "fuse_seqconv_relu" in text.split("nothing to do for")[1]
    page = out.read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert page.count("<svg") == 2 and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert 'class="op gone"' in page and 'class="op new"' in page
    assert "is read elsewhere too" in page or "is fetched" in page  # why the attention stayed
    assert "conv2d_0.w_0.folded_0" in page and "parameter bytes" in page


def test_chosen_passes(model, tmp_path, capsys):
    assert main(["inspect", str(model), "--out", str(tmp_path / "p.html"), "--passes", "set_is_test,fold_conv_bn"]) == 0
    assert "fuse_conv_bias" not in capsys.readouterr().out


def test_unknown_pass_and_missing_model(model, tmp_path, capsys):
    assert main(["inspect", str(model), "--passes", "nothing_known", "--out", str(tmp_path / "p.html")]) == 1
    assert "there is no pass 'nothing_known'" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err and not (tmp_path / "p.html").exists()


def test_onnx_files_too(model, tmp_path, capsys):
    assert main(["export", str(model), "--to", "onnx", "--out", str(tmp_path / "m.onnx")]) == 0
    assert main(["inspect", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "p.html")]) == 0
    assert "operators:" in capsys.readouterr().out
