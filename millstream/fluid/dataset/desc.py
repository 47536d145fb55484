"""DataFeedDesc: how a data file is laid out, as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from millstream.errors import FileFormatError

__all__ = ["DataFeedDesc", "desc_text"]

_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*)*([A-Za-z_]\w*|[{}:]|"(?:[^"\\]|\\.)*"|-?[\w.+-]+)')


def desc_text(name: str, batch_size: int, slots: Sequence[dict[str, Any]], pipe_command: str | None) -> str:
    """The description in text form."""
    lines = [f'name: "{name}"', f"batch_size: {batch_size}", "multi_slot_desc {"]
    for slot in slots:
        lines += ["  slots {", f'    name: "{slot["name"]}"', f'    type: "{slot["type"]}"']
        for flag in ("is_dense", "is_used"):
            if slot.get(flag) is not None:
                lines.append(f"    {flag}: {str(slot[flag]).lower()}")
        lines += [f"    shape: {d}" for d in slot.get("shape", ())]
        lines.append("  }")
    lines.append("}")
    if pipe_command is not None:
        lines.append(f'pipe_command: "{pipe_command}"')
    return "\n".join(lines) + "\n"


class DataFeedDesc:
    """The description of MultiSlot files, read from a file in text form.

    Args:
        proto_file: path. Slots have `name`, `type` ("uint64" or "float"), `is_dense`, `is_used` and `shape`.

    Raises FileFormatError: the text is no such description.
    """

    def __init__(self, proto_file: str) -> None:
        with open(proto_file, encoding="utf-8") as source:
            found = _parse(source.read(), proto_file)
        self.name = _one(found, "name", "MultiSlotDataFeed")
        self.batch_size = int(_one(found, "batch_size", 32))
        self.pipe_command = _one(found, "pipe_command", "cat")
        slots = [s for d in found.get("multi_slot_desc", []) for s in d.get("slots", [])]
        self.slots: list[dict[str, Any]] = []
        for slot in slots:
            if "name" not in slot or "type" not in slot:
                raise FileFormatError(f"{proto_file}: a slot needs a name and a type")
            self.slots.append(
                {
                    "name": slot["name"][0],
                    "type": slot["type"][0],
                    "is_dense": _flag(slot, "is_dense"),
                    "is_used": _flag(slot, "is_used"),
                    "shape": [int(d) for d in slot.get("shape", [])],
                }
            )
        self._by_name = {s["name"]: s for s in self.slots}

    def set_batch_size(self, batch_size: int) -> None:
        """Samples in a batch."""
        self.batch_size = int(batch_size)

    def _mark(self, names: Sequence[str], flag: str) -> None:
        for name in names:
            if name not in self._by_name:
                raise ValueError(f"DataFeedDesc: there is no slot {name!r}; the slots are {', '.join(self._by_name)}")
            self._by_name[name][flag] = True

    def set_dense_slots(self, dense_slots_name: Sequence[str]) -> None:
        """These slots have as many values in every line."""
        self._mark(dense_slots_name, "is_dense")

    def set_use_slots(self, use_slots_name: Sequence[str]) -> None:
        """These slots are fed."""
        self._mark(use_slots_name, "is_used")

    def desc(self) -> str:
        """The description in text form."""
        return desc_text(self.name, self.batch_size, self.slots, self.pipe_command)


def _one(found: dict[str, list[Any]], key: str, default: Any) -> Any:
    return found[key][-1] if key in found else default


def _flag(found: dict[str, list[Any]], key: str) -> bool | None:
    """What the text says of a flag; None where it says nothing."""
    return found[key][-1] == "true" if key in found else None


def _parse(text: str, path: str) -> dict[str, list[Any]]:
    tokens = _TOKEN.findall(text)
    if "".join(_TOKEN.sub("", text).split()):
        raise FileFormatError(f"{path}: not a data feed description in text form")
    root: dict[str, list[Any]] = {}
    stack = [root]
    at = 0
    while at < len(tokens):
        key = tokens[at]
        following = tokens[at + 1] if at + 1 < len(tokens) else ""
        if key == "}" and len(stack) > 1:
            stack.pop()
            at += 1
        elif following == "{":
            inner: dict[str, list[Any]] = {}
            stack[-1].setdefault(key, []).append(inner)
            stack.append(inner)
            at += 2
        elif following == ":" and at + 2 < len(tokens):
            stack[-1].setdefault(key, []).append(tokens[at + 2].strip('"'))
            at += 3
        else:
            raise FileFormatError(f"{path}: expected `name: value` or `name {{`, found {key!r}")
    if len(stack) != 1:
        raise FileFormatError(f"{path}: a brace is not closed")
    return root
