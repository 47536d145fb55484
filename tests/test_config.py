"""Settings, flags and the environment."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

from millstream import config
from millstream.errors import EnforceNotMet


@pytest.fixture(autouse=True)
def _flags_back():
    saved = dict(config._values)
    yield
    config._values.clear()
    config._values.update(saved)


def test_settings_follow_the_environment(monkeypatch):
    monkeypatch.delenv("CPU_NUM", raising=False)
    assert config.settings().cpu_num == 1  # as in Fluid: one device unless the program asks for more
    monkeypatch.setenv("CPU_NUM", "3")
    monkeypatch.setenv("MILLSTREAM_DATASET_MIRROR", "one, two")
    monkeypatch.setenv("MILLSTREAM_DATA_HOME", "data")
    monkeypatch.setenv("MILLSTREAM_CACHE_DIR", "cache")
    assert config.settings() == config.Settings(3, "data", ("one", "two"), "cache")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_wrong_cpu_num_names_the_variable(monkeypatch, text):
    monkeypatch.setenv("CPU_NUM", text)
    with pytest.raises(ValueError, match=r"CPU_NUM: expected an integer >= 1, received"):
        config.settings()


def test_cache_dir_follows_xdg(monkeypatch):
    monkeypatch.delenv("MILLSTREAM_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "base")
    monkeypatch.delenv("MILLSTREAM_DATA_HOME", raising=False)
    monkeypatch.delenv("DATA_HOME", raising=False)
    assert config.settings().cache_dir == os.path.join("base", "millstream")
    assert config.settings().data_home == os.path.join("base", "millstream", "dataset")


def test_cluster(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    monkeypatch.setenv("PADDLE_TRAINER_ENDPOINTS", "a:1, b:2")
    found = config.cluster()
    assert (found.trainer_id, found.trainers_num, found.trainer_endpoints) == (1, 2, ("a:1", "b:2"))
    assert found.training_role == "TRAINER"


WAITS = [({}, {str(config.SPIN), str(config.SPIN_ALONE)}), ({"OMP_WAIT_POLICY": "active"}, {"None"})]


@pytest.mark.parametrize(("chosen", "allowed"), WAITS)
def test_waiting_threads_sleep_soon_unless_the_user_has_chosen(chosen, allowed):
    left = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os, sys, millstream; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=left | chosen, capture_output=True, text=True, check=True)
    spin, torch_is_there = done.stdout.split()
    assert spin in allowed and torch_is_there == "False"


@pytest.mark.parametrize(("running", "spin"), [("1/99", config.SPIN_ALONE), ("4/99", config.SPIN), ("", config.SPIN)])
def test_threads_wait_longer_on_a_machine_that_nobody_else_uses(running, spin, monkeypatch, tmp_path):
    (tmp_path / "loadavg").write_text(f"0.1 0.2 0.3 {running} 77")
    monkeypatch.setattr(config, "LOAD", str(tmp_path / "loadavg"))
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    config.wait_shortly()
    assert os.environ["GOMP_SPINCOUNT"] == str(spin)


def test_waiting_threads_of_our_own_are_not_others(monkeypatch, tmp_path):
    for thread, state in (("7", "R"), ("8", "R"), ("9", "S")):  # numpy's, just imported, look for work
        (tmp_path / "task" / thread).mkdir(parents=True)
        (tmp_path / "task" / thread / "stat").write_text(f"{thread} (a (b) R) {state} 1 7 7")
    (tmp_path / "task" / "10").mkdir()  # one that has just ended
    monkeypatch.setattr(config, "TASKS", str(tmp_path / "task"))
    monkeypatch.setattr(config, "LOAD", str(tmp_path / "loadavg"))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for running, spin in (("2/99", config.SPIN_ALONE), ("3/99", config.SPIN)):
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        (tmp_path / "loadavg").write_text(f"0.1 0.2 0.3 {running} 77")
        config.wait_shortly()
        assert os.environ["GOMP_SPINCOUNT"] == str(spin)


def test_get_and_set():
    assert config.get_flags("FLAGS_check_nan_inf") == {"FLAGS_check_nan_inf": False}
    config.set_flags({"FLAGS_check_nan_inf": 1, "FLAGS_eager_delete_tensor_gb": 2})
    found = config.get_flags(["FLAGS_check_nan_inf", "FLAGS_eager_delete_tensor_gb"])
    assert found == {"FLAGS_check_nan_inf": True, "FLAGS_eager_delete_tensor_gb": 2.0}
    assert config.flag("check_nan_inf") is True


def test_a_wrong_value_changes_nothing():
    with pytest.raises(EnforceNotMet, match="FLAGS_check_nan_inf: expected a bool, received 'yes'"):
        config.set_flags({"FLAGS_benchmark": True, "FLAGS_check_nan_inf": "yes"})
    assert config.flag("benchmark") is False


@pytest.mark.parametrize("value", [2, 1.0, None])
def test_bool_flag_refuses(value):
    with pytest.raises(RuntimeError):
        config.set_flags({"FLAGS_check_nan_inf": value})


def test_unknown_flag_and_wrong_container():
    with pytest.raises(ValueError, match=r"FLAGS_check_naninf cannot get .* Did you mean FLAGS_check_nan_inf\?"):
        config.get_flags("FLAGS_check_naninf")
    with pytest.raises(ValueError, match="cannot set"):
        config.set_flags({"check_nan_inf": True})
    with pytest.raises(TypeError, match="list, tuple or string"):
        config.get_flags(3)
    with pytest.raises(TypeError, match="should be a dict"):
        config.set_flags([("FLAGS_benchmark", True)])


def test_flags_from_the_environment():
    code = "from millstream import config as c; print(c.flag('check_nan_inf'), c.flag('rpc_deadline'))"
    root = pathlib.Path(config.__file__).parents[1]
    env = {**os.environ, "FLAGS_check_nan_inf": "1", "FLAGS_rpc_deadline": "7", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "7"]
    with pytest.raises(ValueError, match="FLAGS_benchmark: expected true or false, received 'maybe'"):
        config._from_text("benchmark", "maybe", False)


def test_every_flag_says_what_it_does():
    for name, flag in config.KNOWN.items():
        assert flag.meaning, name
        assert flag.honoured != flag.meaning.startswith("no effect"), name


def test_no_other_reader_of_the_environment():
    package = pathlib.Path(config.__file__).parent
    readers = []
    for path in package.rglob("*.py"):
        if path.name == "config.py" and path.parent == package:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                readers.append(f"{path.relative_to(package)}:{node.lineno}")
    assert not readers
