"""Reading pickles as data: a small stack machine for plain containers and numpy arrays, never Python's unpickler.

Every opcode that plain data needs is interpreted here; any other, and any global outside a fixed table, is refused.
The table maps to functions of this file, so a pickle can't reach code. What bounds the cost of a hostile file:
long strings stay offsets into the file until an array takes their bytes; the bytes turned into arrays and strings
together can't exceed the file's size; containers and their expansion (one list stored many times) are counted;
shared containers can't form rings. Source of the opcodes: Python's documentation of ``pickletools``.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from millstream.errors import FileFormatError
from millstream.files.pickled_numpy import NUMPY_GLOBALS, Blob, GlobalTable, Latin1, Pending, materialize
from millstream.files.source import Source, open_source

MAX_OBJECTS = 1_000_000
MAX_DEPTH = 200
_EAGER = 1 << 16  # strings up to this many bytes are made at once
_LINE = 1 << 12
_LONG_LINE = 1 << 26  # of text: protocol 0 holds an array's bytes in one line
_MARK = object()
_KEYS = (str, bytes, int, type(None))


def read_pickle(data: Any, source: str | None = None, encoding: str = "latin1", max_objects: int = MAX_OBJECTS) -> Any:
    """The object in a pickle of plain data.

    Args:
        data: a path, an open binary file, or bytes.
        source: names the bytes in errors.
        encoding: how 8-bit strings of Python 2 become str (``bytes``: they stay bytes).
        max_objects: most containers and scalars it may hold.

    Returns: dict, list, tuple, OrderedDict, str, bytes, int, float, bool, None, numpy arrays, dtypes and scalars.
    Raises FileFormatError: anything else is in it (the global is named), it is damaged, or it is out of proportion.
    """
    if isinstance(data, (str, os.PathLike)):
        with open_source(data) as src:
            return _Machine(src, encoding, max_objects).run()
    return _Machine(data if isinstance(data, Source) else Source(data, source), encoding, max_objects).run()


class _Machine:
    """The pickle machine over one Source: a stack, the marks, the memo."""

    def __init__(self, src: Source, encoding: str, max_objects: int) -> None:
        self.src = src
        self.encoding = encoding
        self.max_objects = max_objects
        self.budget = {"array": src.left, "text": src.left}  # bytes that may still be made of what is remembered
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.made = 0
        self.at = 0

    def fail(self, problem: str) -> FileFormatError:
        return self.src.fail(problem, self.at)

    def spend(self, count: int, what: str) -> None:
        self.budget[what] -= count
        if self.budget[what] < 0:
            raise self.fail("the data it describes is larger than the pickle itself")

    def run(self) -> Any:
        src = self.src
        while True:
            self.at = src.pos
            code = src.take(1, "a pickle opcode")[0]
            if code == 0x2E:  # STOP
                break
            handler = _OPCODES.get(code)
            if handler is None:
                raise self.fail(f"pickle opcode {bytes([code])!r} is not one that plain data needs")
            self.made += 1
            if self.made > 4 * self.max_objects:
                raise self.fail(f"expected at most {self.max_objects} objects, found more")
            handler(self)
        if len(self.stack) != 1:
            raise self.fail(f"the pickle ends with {len(self.stack)} objects on its stack; expected 1")
        if src.left:
            raise self.fail(f"{src.left} bytes follow the end of the pickle")
        return _Checker(self).check(self.stack[0])

    # ---- stack and memo ----------------------------------------------------------------------
    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.fail("the pickle takes an object that is not there")
        return self.stack.pop()

    def top(self, kind: type | tuple[type, ...]) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            found = type(self.stack[-1]).__name__ if self.stack else "nothing"
            raise self.fail(f"expected a container on the stack, found {found}")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        for n in range(len(self.stack) - 1, -1, -1):
            if self.stack[n] is _MARK:
                items = self.stack[n + 1 :]
                del self.stack[n:]
                return items
        raise self.fail("the pickle closes a group that it did not open")

    def put(self, index: int) -> None:
        if not self.stack or self.stack[-1] is _MARK:
            raise self.fail("the pickle remembers an object that is not there")
        if not 0 <= index < 1 << 32:
            raise self.fail(f"memo index {index} out of range")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.fail(f"the pickle recalls object {index}, which it did not remember")
        self.push(self.memo[index])

    # ---- reading -----------------------------------------------------------------------------
    def uint(self, size: int) -> int:
        return self.src.integer(size, "a length or index")

    def line(self, limit: int = _LINE) -> bytes:
        """A line of the text opcodes, without its newline."""
        src = self.src
        start = src.pos
        data = bytearray()
        while len(data) < limit and src.left:
            piece = src.take(min(_LINE, src.left), "a line")
            end = piece.find(b"\n")
            if end >= 0:
                data += piece[:end]
                src.seek(start + len(data) + 1)
                return bytes(data)
            data += piece
        raise self.fail(f"expected a line of at most {limit} bytes")

    def number_line(self) -> int:
        return self.parse(int, self.line()[:40])

    def parse(self, kind: Callable[[Any], Any], text: bytes) -> Any:
        try:
            return kind(text.decode("ascii"))
        except (UnicodeDecodeError, ValueError):
            raise self.fail(f"expected a number, found {text[:40]!r}") from None

    def blob(self, length: int, form: str) -> Any:
        """A string of `length` bytes at the current place; a long one stays in the file."""
        src = self.src
        src.need(length, "a string")
        if length > _EAGER:
            found = Blob(src, src.pos, length, form)
            src.skip(length, "a string")
            return found
        raw = src.take(length, "a string")
        if form == "bytes" or (form == "old" and self.encoding == "bytes"):
            return raw
        try:
            text = raw.decode("utf-8", "surrogatepass") if form == "text" else raw.decode(self.encoding)
        except (UnicodeDecodeError, LookupError) as error:
            raise self.fail(f"a string that can't be decoded: {error}") from None
        return text

    # ---- containers --------------------------------------------------------------------------
    def set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2:
            raise self.fail("a dict key without a value")
        for key, value in zip(items[::2], items[1::2]):
            # A tuple key can nest itself and take for ever to hash; an int key can be made to collide.
            if not isinstance(key, _KEYS) or (isinstance(key, int) and abs(key) > 1 << 53):
                raise self.fail(f"expected a str, bytes or int as dict key, found {_kind(key)}")
            target[key] = value

    def find(self, module: Any, name: Any) -> Any:
        found = _GLOBALS.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if found is None:
            asked = f"{str(module)[:80]}.{str(name)[:80]}"
            raise self.fail(f"refused global {asked}: only plain data and numpy arrays are read")
        return found

    def global_line(self) -> None:
        module, name = self.line(), self.line()
        self.push(self.find(module.decode("latin1"), name.decode("latin1")))

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(args, tuple):
            raise self.fail(f"refused to call {_kind(function)} with {_kind(args)}")
        try:
            self.push(function.call(self, args))
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise self.fail(f"{function.name}: {error}") from None

    def build(self) -> None:
        state = self.pop()
        target = self.top((Pending,))
        try:
            target.set_state(self, state)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise self.fail(f"{target.what}: {error}") from None


class _Checker:
    """After the machine: arrays take the place of what stood for them; rings, expansion and depth are judged."""

    def __init__(self, machine: _Machine) -> None:
        self.machine = machine
        self.size: dict[int, int] = {}
        self.depth: dict[int, int] = {}
        self.open: set[int] = set()
        self.strings: dict[int, tuple[Blob, Any]] = {}
        self.done: dict[int, tuple[Any, Any]] = {}  # id -> (tuple, its finished form); the old one keeps its id alive

    def check(self, root: Any) -> Any:
        """The finished object; walks with its own stack, since a pickle may nest a million deep."""
        stack = [root]
        while stack:
            node = stack[-1]
            key = id(node)
            if not isinstance(node, (dict, list, tuple)) or key in self.size:
                stack.pop()
                continue
            children = list(node.values()) if isinstance(node, dict) else node
            if key not in self.open:
                self.open.add(key)
                deeper = [c for c in children if isinstance(c, (dict, list, tuple)) and id(c) not in self.size]
                if any(id(c) in self.open for c in deeper):
                    raise self.machine.fail("a container holds itself")
                stack.extend(deeper)
                continue
            stack.pop()
            self.open.discard(key)
            self.finish(node, children)
        return self.swap(root)

    def finish(self, node: Any, children: Any) -> None:
        key = id(node)
        self.size[key] = 1 + sum(self.size.get(id(c), 1) for c in children)
        self.depth[key] = 1 + max((self.depth.get(id(c), 0) for c in children), default=0)
        if self.size[key] > self.machine.max_objects or self.depth[key] > MAX_DEPTH:
            raise self.machine.fail(
                f"expected at most {self.machine.max_objects} objects nested at most {MAX_DEPTH} deep, found more"
            )
        if isinstance(node, tuple):
            if any(self.changes(c) for c in node):
                self.done[key] = (node, tuple(self.swap(c) for c in node))
        elif isinstance(node, list):
            node[:] = [self.swap(c) for c in node]
        else:
            for name, value in node.items():
                node[name] = self.swap(value)

    def string(self, blob: Blob) -> Any:
        """A long string that turned out to be data of its own; made once, however often it is stored."""
        found = self.strings.get(id(blob))
        if found is None:
            machine, src = self.machine, blob.src
            machine.spend(blob.length, "text")
            at = src.pos
            src.seek(blob.pos)
            raw = src.take(blob.length, "a string")
            src.seek(at)
            try:
                if isinstance(blob, Latin1):
                    value: Any = raw.decode("utf-8").encode("latin1")
                elif blob.form == "bytes" or (blob.form == "old" and machine.encoding == "bytes"):
                    value = raw
                else:
                    value = raw.decode("utf-8", "surrogatepass") if blob.form == "text" else raw.decode(machine.encoding)
            except (UnicodeError, LookupError) as error:
                raise machine.fail(f"a string that can't be decoded: {error}") from None
            found = self.strings[id(blob)] = (blob, value)
        return found[1]

    def changes(self, child: Any) -> bool:
        return id(child) in self.done or isinstance(child, (Pending, _Global, Blob))

    def swap(self, child: Any) -> Any:
        if isinstance(child, Pending):
            return materialize(child, self.machine)
        if isinstance(child, Blob):
            return self.string(child)
        if isinstance(child, _Global) or child is _MARK:
            raise self.machine.fail(f"expected plain data, found {_kind(child)}")
        finished = self.done.get(id(child))
        return child if finished is None else finished[1]


def _kind(value: Any) -> str:
    if isinstance(value, _Global):
        return f"the function {value.name}"
    if isinstance(value, Blob):
        return f"a string of {value.length} bytes"
    if isinstance(value, Pending):
        return value.what
    return "a mark" if value is _MARK else f"{type(value).__name__}"


# ---- globals -------------------------------------------------------------------------------------
class _Global:
    """A name that a pickle may call, and what that does here."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[[Any, tuple[Any, ...]], Any]) -> None:
        self.name = name
        self.call = call


def _ordered_dict(machine: _Machine, args: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    made: OrderedDict[Any, Any] = OrderedDict()
    if len(args) > 1 or (args and not isinstance(args[0], list)):
        raise TypeError("expected nothing or a list of pairs")
    for pair in args[0] if args else []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError("expected a list of pairs")
        machine.set_items(made, list(pair))
    return made


def _empty_bytes(machine: _Machine, args: tuple[Any, ...]) -> bytes:
    if args:
        raise TypeError("expected no argument")
    return b""


_NAMED: GlobalTable = {
    **NUMPY_GLOBALS,
    ("collections", "OrderedDict"): _ordered_dict,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
_GLOBALS = {key: _Global(".".join(key), call) for key, call in _NAMED.items()}


# ---- opcodes -------------------------------------------------------------------------------------
def _append(m: _Machine) -> None:
    value = m.pop()
    m.top(list).append(value)


def _appends(m: _Machine) -> None:
    items = m.pop_mark()
    m.top(list).extend(items)


def _set_item(m: _Machine) -> None:
    value = m.pop()
    key = m.pop()
    m.set_items(m.top(dict), [key, value])


def _set_items(m: _Machine) -> None:
    items = m.pop_mark()
    m.set_items(m.top(dict), items)


def _dict(m: _Machine) -> None:
    made: dict[Any, Any] = {}
    m.set_items(made, m.pop_mark())
    m.push(made)


def _tuple(count: int) -> Callable[[_Machine], None]:
    def make(m: _Machine) -> None:
        m.push(tuple([m.pop() for _ in range(count)][::-1]))

    return make


def _proto(m: _Machine) -> None:
    version = m.uint(1)
    if version > 5:
        raise m.fail(f"expected pickle protocol 5 or older, found {version}")


def _int_line(m: _Machine) -> None:
    text = m.line()[:40]
    m.push({b"00": False, b"01": True}.get(text) if text in (b"00", b"01") else m.parse(int, text))


def _long(size: int) -> Callable[[_Machine], None]:
    def make(m: _Machine) -> None:
        length = m.src.integer(size, "the length of an int", signed=size == 4)
        if not 0 <= length <= 16:
            raise m.fail(f"expected an int of at most 16 bytes, found {length}")
        m.push(m.src.integer(length, "an int", signed=True))

    return make


def _stack_global(m: _Machine) -> None:
    name, module = m.pop(), m.pop()
    m.push(m.find(module, name))


def _quoted(m: _Machine) -> None:
    """STRING: a Python 2 string literal in quotes; only what needs no escapes but the usual ones."""
    text = m.line(_LONG_LINE)
    if len(text) < 2 or text[:1] not in b"'\"" or text[-1:] != text[:1]:
        raise m.fail(f"expected a string in quotes, found {text[:40]!r}")
    try:
        raw = text[1:-1].decode("unicode_escape" if b"\\" in text else "latin1").encode("latin1")
        m.push(raw if m.encoding == "bytes" else raw.decode(m.encoding))
    except (UnicodeError, LookupError) as error:
        raise m.fail(f"a string that can't be decoded: {error}") from None


def _text_line(m: _Machine) -> None:
    try:
        m.push(m.line(_LONG_LINE).decode("raw_unicode_escape"))
    except UnicodeDecodeError as error:
        raise m.fail(f"a string that can't be decoded: {error}") from None


def _blob(size: int, form: str) -> Callable[[_Machine], None]:
    return lambda m: m.push(m.blob(m.uint(size), form))


def _frame(m: _Machine) -> None:
    length = m.uint(8)
    if length > m.src.left:
        raise m.fail(f"truncated: a frame of {length} bytes, {m.src.left} are left")


_OPCODES: dict[int, Callable[[_Machine], Any]] = {
    ord(code): handler
    for code, handler in {
        "\x80": _proto,
        "(": lambda m: m.push(_MARK),
        "0": lambda m: m.stack.pop() if m.stack and m.stack[-1] is _MARK else m.pop(),
        "1": lambda m: m.pop_mark(),
        "2": lambda m: (m.push(m.pop()), m.push(m.stack[-1])),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _int_line,
        "L": lambda m: m.push(m.parse(int, m.line()[:40].rstrip(b"L"))),
        "J": lambda m: m.push(m.src.integer(4, "an int", signed=True)),
        "K": lambda m: m.push(m.uint(1)),
        "M": lambda m: m.push(m.uint(2)),
        "\x8a": _long(1),
        "\x8b": _long(4),
        "F": lambda m: m.push(m.parse(float, m.line()[:40])),
        "G": lambda m: m.push(struct.unpack(">d", m.src.take(8, "a float"))[0]),
        "S": _quoted,
        "T": _blob(4, "old"),
        "U": _blob(1, "old"),
        "V": _text_line,
        "X": _blob(4, "text"),
        "\x8c": _blob(1, "text"),
        "\x8d": _blob(8, "text"),
        "B": _blob(4, "bytes"),
        "C": _blob(1, "bytes"),
        "\x8e": _blob(8, "bytes"),
        "\x96": _blob(8, "bytes"),
        "]": lambda m: m.push([]),
        "l": lambda m: m.push(m.pop_mark()),
        "a": _append,
        "e": _appends,
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.pop_mark())),
        "\x85": _tuple(1),
        "\x86": _tuple(2),
        "\x87": _tuple(3),
        "}": lambda m: m.push({}),
        "d": _dict,
        "s": _set_item,
        "u": _set_items,
        "p": lambda m: m.put(m.number_line()),
        "q": lambda m: m.put(m.uint(1)),
        "r": lambda m: m.put(m.uint(4)),
        "\x94": lambda m: m.put(len(m.memo)),
        "g": lambda m: m.get(m.number_line()),
        "h": lambda m: m.get(m.uint(1)),
        "j": lambda m: m.get(m.uint(4)),
        "c": lambda m: m.global_line(),
        "\x93": _stack_global,
        "R": lambda m: m.reduce(),
        "b": lambda m: m.build(),
        "\x95": _frame,
    }.items()
}
