"""Runs the examples of docs/examples and writes the reference pages that show them with what they print.

A file of docs/examples is a page: its docstring, perhaps a part `#: setup` that runs before each example, and the examples.
`#: name, name` begins an example of these public names. Examples see what PREAMBLE defines and run in a Program, Scope and
folder of their own.
"""

import contextlib
import glob
import inspect
import io
import linecache
import os
import re
import sys
import tempfile
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "examples")
PREAMBLE = '''import numpy as np
import millstream as paddle
import millstream.fluid as fluid
from millstream.fluid import layers

feed = {}


def data(value, lengths=None, dtype=None):
    """An input, which `show` feeds with `value`; `lengths`: of its sequences."""
    value = np.array(value) if dtype is None else np.array(value, dtype)
    if dtype is None:
        value = value.astype("float32" if value.dtype.kind == "f" else "int64")
    name = "x%d" % len(feed)
    feed[name] = value if lengths is None else fluid.create_lod_tensor(value, lengths, fluid.CPUPlace())
    shape = list(value.shape) if lengths is None else [-1] + list(value.shape[1:])
    return fluid.data(name, shape, str(value.dtype), lod_level=len(lengths or []))


def show(*results):
    """Run the default Programs on the CPU and print the values of `results`, and the lengths of sequences."""
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    for value in exe.run(feed=feed, fetch_list=list(results), return_numpy=False):
        array = np.array(value)
        array = array.astype("float64").round(4) + 0.0 if array.dtype.kind == "f" else array
        lengths = value.recursive_sequence_lengths()
        print(array.tolist(), *(["lengths %s" % lengths] if lengths else []))
'''
Example = namedtuple("Example", "names code")
Page = namedtuple("Page", "name title text setup examples")


def pages():
    """All pages, by name."""
    return [read(path) for path in sorted(glob.glob(os.path.join(FOLDER, "*.py")))]


def read(path):
    """The page in a file of examples."""
    with open(path, encoding="utf-8") as source:
        text = source.read()
    head, *parts = re.split(r"^#: ", text, flags=re.M)
    title, _, description = head.split('"""')[1].partition("\n")
    setup, examples = "", []
    for part in parts:
        names, _, code = part.partition("\n")
        if names.strip() == "setup":
            setup = code.strip() + "\n"
        else:
            examples.append(Example([n.strip() for n in names.split(",")], code.strip() + "\n"))
    return Page(os.path.basename(path)[:-3], title.strip(), description.strip(), setup, examples)


@contextlib.contextmanager
def small_data_sets(names):
    """A data home with small files, in the real formats, of the data sets whose functions are named."""
    from millstream.dataset import common

    tests = os.path.join(os.path.dirname(HERE), "tests", "dataset")
    sys.path.insert(0, tests)
    old = common.DATA_HOME, common.download
    try:
        import tiny_files

        with tempfile.TemporaryDirectory() as home:
            common.DATA_HOME = home
            for name in {n.split(".")[2] for n in names if n.startswith("paddle.dataset.")}:
                if name == "flowers":
                    tiny_files.flowers(home, tiny_picture)
                elif name == "voc2012":
                    tiny_files.voc2012(home, tiny_picture, tiny_picture)
                elif hasattr(tiny_files, name):
                    getattr(tiny_files, name)(home)
                if name != "common":  # their checksums are not those of the real files
                    common.download = lambda url, module, md5, save_name=None: old[1](url, module, None, save_name)
            yield
    finally:
        common.DATA_HOME, common.download = old
        sys.path.remove(tests)


def tiny_picture(number):
    """An image file of one colour."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (260, 300), (10 * number, 20, 30)).save(out, format="PNG")
    return out.getvalue()


def compiled(text, name):
    """The code of a text, which `inspect` finds by its name: what becomes a Program is read again."""
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    return compile(text, name, "exec")


def run(page, example):
    """What an example prints."""
    import millstream.fluid as fluid

    namespace = {"__name__": "example"}
    printed = io.StringIO()
    here = os.getcwd()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(small_data_sets(example.names))
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(fluid.scope_guard(fluid.Scope()))
        stack.enter_context(fluid.unique_name.guard())
        stack.enter_context(fluid.program_guard(fluid.Program(), fluid.Program()))
        os.chdir(folder)
        try:
            for part in (PREAMBLE, page.setup, example.code):
                exec(compiled(part, f"{page.name}: {', '.join(example.names)}"), namespace)
        except BaseException as error:
            raise RuntimeError(f"docs/examples/{page.name}.py, {', '.join(example.names)}: {error}") from error
        finally:
            os.chdir(here)
    return printed.getvalue()


def find(name):
    """The object with a name as in `layers.fc`, `fluid.data` or `paddle.batch`."""
    import millstream

    parts = name.split(".")
    found = millstream if parts[0] == "paddle" else millstream.fluid
    for part in parts[1:] if parts[0] in ("paddle", "fluid") else parts:
        found = getattr(found, part)
    return found


def full_name(name):
    """`layers.fc` as `fluid.layers.fc`."""
    return name if name.startswith(("paddle.", "fluid.")) else "fluid." + name


def signature(found):
    """The parameters, without annotations."""
    try:
        given = inspect.signature(found)
    except (TypeError, ValueError):
        return "(...)"
    empty = inspect.Parameter.empty
    parameters = [p.replace(annotation=empty) for p in given.parameters.values()]
    text = str(given.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def markdown(page):
    """The text of a reference page."""
    lines = [f"# {page.title}", "", page.text, ""]
    lines += ["Written by `docs/generate.py` from the code and `docs/examples`. Each example begins with"]
    lines += ["[the same lines](index.md#before-every-example)" + (" and these:" if page.setup else "."), ""]
    if page.setup:
        lines += ["```python", page.setup.rstrip(), "```", ""]
    for example in page.examples:
        for name in example.names:
            found = find(name)
            lines += [f"## {full_name(name)}", "", f"`{name.split('.')[-1]}{signature(found)}`", ""]
            lines += [inspect.getdoc(found) or "", ""]
        lines += ["```python", example.code.rstrip(), "```", "", "prints", "", "```", run(page, example).rstrip(), "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def index(found):
    """The text of the page that lists all others."""
    lines = ["# Reference", "", "Names are those of `paddle.fluid` 1.8.5, below `millstream.fluid`.", ""]
    lines += [f"* [{page.title}]({page.name}.md): {len(page.examples)} examples" for page in found]
    lines += ["* [Operators](operators.md)", "* [Arguments without meaning](arguments.md)", ""]
    lines += ["## Before every example", "", "```python", PREAMBLE.rstrip(), "```", ""]
    return "\n".join(lines)


def arguments():
    """The text of the page of arguments without meaning."""
    from arguments import MEANINGLESS

    lines = ["# Arguments without meaning", "", "Accepted because programs pass them. Others are honoured, or refused"]
    lines += ["with an error. `use_cudnn` and `use_mkldnn` become attributes of operators that no kernel reads.", ""]
    lines += ["| function | arguments | why |", "| --- | --- | --- |"]
    for function, names, why in MEANINGLESS:
        lines.append(f"| `{function.removesuffix('.__init__')}` | {', '.join(f'`{n}`' for n in names)} | {why} |")
    return "\n".join(lines) + "\n"
