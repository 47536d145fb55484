"""The command ``millstream``."""

import os
import subprocess
import sys
import zipfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def millstream(*arguments, cwd=None):
    environment = dict(os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "millstream.cli", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120)


def script(folder, text, name="program.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_version_and_usage():
    done = millstream("--version")
    assert done.returncode == 0 and "1.8.5" in done.stdout
    for arguments in ((), ("nothing",), ("run",)):
        done = millstream(*arguments)
        assert done.returncode == 2 and "usage" in done.stderr


def test_arguments_path_and_name(tmp_path):
    script(tmp_path, "VALUE = 3\n", "beside.py")
    path = script(
        tmp_path,
        "import sys, beside, paddle, paddle.fluid as fluid\n"
        "import __main__\n"
        "assert __main__.beside is beside and __name__ == '__main__'\n"
        "print(sys.argv, sys.path[0], __file__, paddle.__name__, fluid.__name__)\n",
    )
    done = millstream("run", path, "--rate", "0.1", "-m", "--", "x")
    assert done.returncode == 0, done.stderr
    given = [str(path), "--rate", "0.1", "-m", "--", "x"]
    assert done.stdout.strip() == f"{given} {tmp_path} {path} millstream millstream.fluid"


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('gone')", 1, "gone"),
        ("raise SystemExit", 0, ""),
        ("import os; os._exit(5)", 5, ""),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
def test_exit_status(tmp_path, code, status, text):
    done = millstream("run", script(tmp_path, code))
    assert done.returncode == status and text in done.stderr


def test_traceback_is_the_programs_own(tmp_path):
    path = script(tmp_path, "def f():\n    raise ValueError('boom')\n\n\nf()\n")
    done = millstream("run", path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Traceback") and f'File "{path}", line 5' in lines[1] and lines[-1] == "ValueError: boom"
    assert "millstream/cli" not in done.stderr and "runpy" not in done.stderr
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stderr == plain.stderr


def test_syntax_error(tmp_path):
    path = script(tmp_path, "def (\n")
    done = millstream("run", path)
    assert done.returncode == 1 and "SyntaxError" in done.stderr and "millstream/cli" not in done.stderr


def test_missing_file(tmp_path):
    done = millstream("run", tmp_path / "nothing.py")
    assert done.returncode == 2 and "nothing.py" in done.stderr and "Traceback" not in done.stderr


def test_module_directory_and_zip(tmp_path):
    package = tmp_path / "pack"
    package.mkdir()
    script(package, "", "__init__.py")
    code = "import sys, paddle\nprint(paddle.__version__, sys.argv[1:])\nif len(sys.argv) > 2: 1 / 0\n"
    script(package, code, "__main__.py")
    done = millstream("run", "-m", "pack", "a", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "1.8.5 ['a']", done.stderr
    assert millstream("run", package, "a").stdout.strip() == "1.8.5 ['a']"
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as target:
        target.write(package / "__main__.py", "__main__.py")
    assert millstream("run", tmp_path / "z.zip", "a").stdout.strip() == "1.8.5 ['a']"
    done = millstream("run", "-m", "pack", "a", "b", cwd=tmp_path)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and "runpy" not in done.stderr


def test_main_module_stays_for_exit_handlers(tmp_path):
    path = script(tmp_path, "import atexit\nNAME = 'kept'\natexit.register(lambda: print(NAME))\n")
    assert millstream("run", path).stdout.strip() == "kept"
