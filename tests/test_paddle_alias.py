"""``import paddle`` as millstream, each case in an interpreter of its own."""

import os
import subprocess
import sys
import textwrap

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(code, **extra):
    environment = dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS="1", **extra)
    command = [sys.executable, "-W", "error::ImportWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_object_under_both_names_and_no_others():
    run("""
        from millstream import paddle_alias
        paddle_alias.install()
        paddle_alias.install()
        import paddle
        import paddle.fluid as fluid
        import paddle.fluid.layers, paddle.fluid.core, paddle.reader, paddle.dataset, paddle.version
        from paddle.fluid.layers import fc
        from paddle.fluid.core import AnalysisConfig, PaddleTensor, create_paddle_predictor
        from paddle.fluid.initializer import NormalInitializer
        import paddle.dataset.mnist as mnist
        import millstream, millstream.fluid, millstream.dataset.mnist, millstream.fluid.layers
        assert paddle is millstream and fluid is millstream.fluid and mnist is millstream.dataset.mnist
        assert paddle.fluid.layers is millstream.fluid.layers and fc is fluid.layers.fc
        assert paddle.fluid.core is millstream.fluid.core
        for module in (paddle, fluid, mnist):
            assert module.__spec__.name.startswith("millstream"), module.__spec__
        assert paddle.__version__ == "1.8.5" and paddle.version.full_version == "1.8.5"
        assert paddle.compat.to_text(b"x") == "x"

        import importlib
        for name in ("paddle.ir", "paddle.runtime.executor", "paddle.nothing", "paddle.fluid.nothing"):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                assert error.name.startswith("paddle.") and "millstream" in str(error), error
            else:
                raise SystemExit("imported " + name)
    """)


def test_batch_stays_the_function():
    run("""
        from millstream import paddle_alias
        paddle_alias.install()
        import paddle.batch
        import paddle
        assert list(paddle.batch(lambda: iter(range(3)), 2)()) == [[0, 1], [2]]
        from paddle.batch import batch
        assert batch is paddle.batch
    """)


def test_another_paddle_is_refused():
    run("""
        import sys, types
        sys.modules["paddle"] = types.ModuleType("paddle")
        from millstream import paddle_alias
        try:
            paddle_alias.install()
        except RuntimeError as error:
            assert "already imported" in str(error)
        else:
            raise SystemExit("accepted")
        assert not paddle_alias.installed()
    """)


def test_uninstall():
    run("""
        import sys
        from millstream import paddle_alias
        paddle_alias.install()
        import paddle.reader
        paddle_alias.uninstall()
        assert not [n for n in sys.modules if n.split(".")[0] == "paddle"]
        import importlib.util
        assert importlib.util.find_spec("paddle") is None or "millstream" not in importlib.util.find_spec("paddle").origin
    """)


def test_import_millstream_is_light_and_numba_stays_out():
    run("""
        import sys
        import millstream as paddle
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        paddle.fluid
        assert "torch" in sys.modules and "numba" not in sys.modules
        assert {"fluid", "reader", "dataset", "batch"} <= set(dir(paddle))
        try:
            paddle.nothing
        except AttributeError as error:
            assert "nothing" in str(error)
    """)


def test_small_rooms(tmp_path, monkeypatch, capsys):
    from millstream import sysconfig
    from millstream.distributed.launch import launch
    from millstream.errors import NotSupportedError

    for give in (sysconfig.get_include, sysconfig.get_lib):
        with pytest.raises(NotSupportedError, match="py_func"):
            give()
    script = tmp_path / "train.py"
    script.write_text("import os, sys; print(os.environ['PADDLE_TRAINERS_NUM'], sys.argv[1:])")
    for name in ("TRAINER_ID", "TRAINERS_NUM", "CURRENT_ENDPOINT", "TRAINER_ENDPOINTS"):
        monkeypatch.setenv(f"PADDLE_{name}", "")
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.setattr("sys.path", list(sys.path))
    launch(["--started_port", "6171", str(script), "--epochs", "2"])
    assert capsys.readouterr().out == "1 ['--epochs', '2']\n"
    with pytest.raises(NotSupportedError, match="cpu_places"):
        launch(["--selected_gpus=0,1", str(script)])
