"""Runs the examples of docs/examples under the interpreter that holds PaddlePaddle: {page: [[names, printed]]} as JSON."""

import contextlib
import importlib.util
import io
import json
import os
import sys
import tempfile

import paddle
import paddle.fluid as fluid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def pages_module():
    spec = importlib.util.spec_from_file_location("pages", os.path.join(ROOT, "docs", "pages.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def for_paddle(code):
    return code.replace("import millstream as paddle", "import paddle").replace("millstream", "paddle")


def run(parts, name):
    printed = io.StringIO()
    here = os.getcwd()
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(printed), fluid.scope_guard(
            fluid.Scope()
        ), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
            os.chdir(folder)
            namespace = {"__name__": "example"}
            for part in parts:
                exec(pages_module().compiled(for_paddle(part), name), namespace)
            os.chdir(here)
        return printed.getvalue()
    except Exception as error:
        fluid.framework._dygraph_tracer_ = None  # guard() leaves its mode on when it is left by an error
        return "%s: %s" % (type(error).__name__, str(error)[-300:])
    finally:
        os.chdir(here)


def main():
    pages = pages_module()
    found = {}
    for page in [p for p in pages.pages() if p.name in sys.argv[2:]]:
        found[page.name] = [
            [example.names, run([pages.PREAMBLE, page.setup, example.code], page.name)] for example in page.examples
        ]
    with open(sys.argv[1], "w") as out:
        json.dump(found, out)


if __name__ == "__main__":
    assert paddle.__version__.startswith("1.8")
    main()
