"""Writes docs/reference: `python docs/generate.py [--check] [page...]`.

operators.md comes from the operator declarations, arguments.md from docs/arguments.py, every other page from a file of
docs/examples, whose examples run. With --check nothing is written; the exit status says whether the pages are up to date.
"""

import os
import sys
import warnings

import pages as reference

import millstream.fluid  # noqa: F401  (rooms that it loads declare operators too)
from millstream.ops import REGISTRY
from millstream.ops._opdef import REQUIRED

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "reference")


def slots(items):
    marks = [("optional", "optional"), ("many", "list"), ("ragged", "LoD"), ("inout", "updated")]
    parts = []
    for slot in items:
        notes = [word for field, word in marks if getattr(slot, field)]
        parts.append(f"`{slot.name}`" + (f" ({', '.join(notes)})" if notes else ""))
    return ", ".join(parts) or "none"


def section(definition, explicit):
    lines = [f"### {definition.name}", "", definition.doc or "(no description)", ""]
    lines.append(f"Inputs: {slots(definition.inputs)}. Outputs: {slots(definition.outputs)}.")
    if definition.attrs:
        lines += ["", "| attribute | type | default |", "| --- | --- | --- |"]
        for name, attr in definition.attrs.items():
            shown = float(f"{attr.default:.7g}") if isinstance(attr.default, float) else attr.default
            default = "required" if attr.default is REQUIRED else f"`{shown!r}`"
            lines.append(f"| `{name}` | {attr.type.name} | {default} |")
    if definition.grad is False:
        gradient = "none"
    elif callable(definition.grad):
        gradient = "made of other operators"
    else:
        declared = definition.name in explicit or definition.block
        gradient = f"`{definition.grad_type}`, " + ("declared" if declared else "derived")
    lines += ["", f"Gradient: {gradient}.", ""]
    return lines


def page():
    declared = list(REGISTRY.declared())
    explicit = {REGISTRY.forward_type(d.name) for d in declared}
    forward = [d for d in declared if REGISTRY.forward_type(d.name) is None]
    lines = ["# Operators", "", "Generated from the declarations by `docs/generate.py`.", "", "## Complexity meter", ""]
    lines += ["How many operators override what is otherwise derived.", "", "| what | operators |", "| --- | --- |"]
    lines += [f"| {what} | {count} |" for what, count in REGISTRY.meter().items()]
    lines += ["", "## Declarations", ""]
    for definition in forward:
        lines += section(definition, explicit)
    return "\n".join(lines).rstrip() + "\n"


def texts(names):
    """(file name, text) of the pages with these names; of all when there are none."""
    found = reference.pages()
    makers = {"operators": page, "arguments": reference.arguments, "index": lambda: reference.index(found)}
    makers |= {one.name: lambda one=one: reference.markdown(one) for one in found}
    for name in names or makers:
        yield f"{name}.md", makers[name]()


def outdated(names=()):
    """The pages whose text is not what would be written."""
    old = []
    for name, text in texts(names):
        path = os.path.join(FOLDER, name)
        if not os.path.exists(path):
            old.append(name)
            continue
        with open(path, encoding="utf-8") as current:
            if current.read() != text:
                old.append(name)
    return old


def main():
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    warnings.simplefilter("ignore")  # of forms that examples show on purpose
    if "--check" in sys.argv:
        old = outdated(names)
        sys.exit(f"out of date: docs/reference/{', '.join(old)}: run `make docs`" if old else 0)
    os.makedirs(FOLDER, exist_ok=True)
    for name, text in texts(names):
        with open(os.path.join(FOLDER, name), "w", encoding="utf-8") as out:
            out.write(text)


if __name__ == "__main__":
    main()
