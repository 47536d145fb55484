"""Writes docs/reference/operators.md from the operator declarations: `python docs/generate.py [--check]`.

With --check nothing is written; the exit status says whether the page is up to date.
"""

import os
import sys

from millstream.ops import REGISTRY
from millstream.ops._opdef import REQUIRED

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "reference", "operators.md")


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
            default = "required" if attr.default is REQUIRED else f"`{attr.default!r}`"
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


def main():
    text = page()
    if "--check" in sys.argv:
        with open(PAGE, encoding="utf-8") as current:
            sys.exit(0 if current.read() == text else "docs/reference/operators.md is out of date: run `make docs`")
    os.makedirs(os.path.dirname(PAGE), exist_ok=True)
    with open(PAGE, "w", encoding="utf-8") as out:
        out.write(text)


if __name__ == "__main__":
    main()
