"""``millstream run script.py …`` runs a Fluid program unmodified, with names that Python and numpy had then."""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import types

from millstream import paddle_alias
from millstream.cli._command import Command


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "millstream run [-h] (script.py | -m module) [arguments of the program ...]"
    parser.add_argument("-m", dest="module", action="store_true", help="the program is a module's name, not a file")
    parser.add_argument("program", help="script, directory or zip file with __main__.py; with -m a module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on in sys.argv")


def _run(arguments: argparse.Namespace) -> int:
    """Run a program as ``python`` would, with ``paddle`` being millstream; its uncaught exception gives status 1."""
    program = arguments.program
    if not arguments.module and not os.path.exists(program):
        sys.stderr.write(f"millstream run: can't open file {program!r}: no such file\n")
        return 2
    from millstream.cli import bygone  # here: it imports numpy

    paddle_alias.install()
    bygone.restore()
    sys.argv[:] = [program, *arguments.arguments]
    try:
        if arguments.module:
            sys.path.insert(0, os.getcwd())
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        elif os.path.isfile(program) and not _is_zip(program):
            sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
            _run_script(program)
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit:
        raise
    except BaseException as error:
        _show(error)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _is_zip(path: str) -> bool:
    with open(path, "rb") as fh:
        return fh.read(2) == b"PK"


def _run_script(path: str) -> None:
    """Execute a file as the module ``__main__``, which stays there (threads and exit handlers still use it)."""
    main_module = types.ModuleType("__main__")
    main_module.__dict__.update(__file__=path, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main_module
    with open(path, "rb") as fh:
        code = compile(fh.read(), path, "exec", dont_inherit=True)
    exec(code, main_module.__dict__)  # running the user's program is what this command is for


def _show(error: BaseException) -> None:
    """Print the traceback from the program's own first frame on, through sys.excepthook."""
    ours = {__file__, runpy.__file__, "<frozen runpy>"}
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    error.__traceback__ = trace
    sys.excepthook(type(error), error, trace)
    sys.stderr.flush()


COMMAND = Command("run", "run a Fluid program; `import paddle` gives millstream", _run_arguments, _run)
