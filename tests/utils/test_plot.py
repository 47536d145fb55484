import pytest

from millstream.utils.plot import Ploter


def test_curves_keep_points_and_draw_them(tmp_path, monkeypatch):
    curves = Ploter("train", "test")
    curves.append("train", 0, 1.5)
    with pytest.raises(KeyError, match="valid"):
        curves.append("valid", 0, 1.0)
    monkeypatch.setenv("DISABLE_PLOT", "True")
    curves.plot(str(tmp_path / "no.png"))
    assert not (tmp_path / "no.png").exists()
    curves.reset()
    assert curves.__plot_data__["train"].step == []


def test_a_picture_is_written(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.delenv("DISABLE_PLOT", raising=False)
    curves = Ploter("train")
    curves.append("train", 0, 1.5)
    curves.append("train", 1, 1.0)
    curves.plot(str(tmp_path / "yes.png"))
    assert (tmp_path / "yes.png").stat().st_size > 1000
