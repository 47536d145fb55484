"""Program: Blocks, the two default Programs, and the guards that choose them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from millstream.ir import walk
from millstream.ir.block import Block
from millstream.ir.operator import ROLE_BACKWARD, ROLE_LR_SCHED, ROLE_OPTIMIZE
from millstream.ir.variable import Parameter, Variable

if TYPE_CHECKING:
    from millstream.ir.desc import ProgramDesc

class Program:
    """A list of Blocks; block 0 is the global one."""

    _first_seed = 0  # random_seed of new Programs, see global_seed

    def __init__(self) -> None:
        self.blocks: list[Block] = [Block(self, 0)]
        self.current_block_idx = 0
        self._seed = Program._first_seed
        self._version = 0  # counts changes; plans are cached on it
        self._op_role = 0
        self._op_role_vars: list[str] = []
        self._name_scope = ""
        self._device = ""
        self._is_distributed = False
        self.saved_version: int | None = None  # ProgramDesc.version of a Program read from a file
        self.saved_extra = b""  # fields of the ProgramDesc that have no meaning here; written back unchanged
        self._pass_applied: list[str] = []
        self._options: dict[str, Any] = {}  # what other layers hang on a Program (readers, mixed precision, …)

    def _touch(self) -> None:
        self._version += 1

    _bump_version = _touch

    # ---- seeds and roles ---------------------------------------------------------------------
    @property
    def random_seed(self) -> int:
        """Seed of every random operator whose own seed is 0; 0 means: a different one each run."""
        return self._seed

    @random_seed.setter
    def random_seed(self, seed: int) -> None:
        if not isinstance(seed, int):
            raise ValueError(f"Program.random_seed must be an integer, received {seed!r}")
        self._seed = seed
        self._touch()

    def global_seed(self, seed: int = 0) -> None:
        """Set `random_seed` of this Program, and of all that are made from now on."""
        self.random_seed = seed
        Program._first_seed = seed

    @property
    def op_role(self) -> int:
        return self._op_role

    @contextmanager
    def _role_guard(self, role: int, role_vars: list[str] | None = None) -> Iterator[None]:
        old, old_vars = self._op_role, self._op_role_vars
        self._op_role = role
        if role_vars is not None:
            self._op_role_vars = role_vars
        try:
            yield
        finally:
            self._op_role, self._op_role_vars = old, old_vars

    def _optimized_guard(self, param_and_grads: Any) -> Any:
        """Operators appended inside are optimizer operators of the given (parameter, gradient)."""
        role_vars = [v.name if isinstance(v, Variable) else v for v in param_and_grads]
        return self._role_guard(ROLE_OPTIMIZE, role_vars)

    def _lr_schedule_guard(self, is_with_opt: bool = False) -> Any:
        return self._role_guard(ROLE_LR_SCHED | (ROLE_OPTIMIZE if is_with_opt else 0))

    def _backward_role_guard(self) -> Any:
        return self._role_guard(ROLE_BACKWARD)

    # ---- blocks ------------------------------------------------------------------------------
    @property
    def num_blocks(self) -> int:
        return len(self.blocks)

    def global_block(self) -> Block:
        return self.blocks[0]

    def block(self, index: int) -> Block:
        return self.blocks[index]

    def current_block(self) -> Block:
        return self.blocks[self.current_block_idx]

    def _create_block(self, parent_idx: int | None = None) -> Block:
        parent = self.current_block_idx if parent_idx is None else parent_idx
        block = Block(self, len(self.blocks), parent)
        self.blocks.append(block)
        self.current_block_idx = block.idx
        self._touch()
        return block

    def _rollback(self) -> None:
        self.current_block_idx = self.current_block().parent_idx

    @contextmanager
    def _block_guard(self, parent_idx: int | None = None) -> Iterator[Block]:
        """Appending goes into a new sub-Block inside the ``with``."""
        block = self._create_block(parent_idx)
        try:
            yield block
        finally:
            self._rollback()

    # ---- contents ----------------------------------------------------------------------------
    def list_vars(self) -> Iterator[Variable]:
        """All variables of all Blocks."""
        for block in self.blocks:
            yield from block.vars.values()

    def all_parameters(self) -> list[Parameter]:
        return [p for block in self.blocks for p in block.all_parameters()]

    def clone(self, for_test: bool = False) -> Program:
        """A copy; with `for_test`, backward and optimizer operators are cut and `is_test` is set."""
        return walk.clone_for_test(self) if for_test else walk.clone(self)

    def _prune(self, targets: Any) -> Program:
        return walk.prune(self, [], targets)

    def _prune_with_input(self, feeded_var_names: Any, targets: Any) -> Program:
        return walk.prune(self, feeded_var_names, targets)

    def _inference_optimize(self, prune_read_op: bool = True) -> Program:
        return walk.for_inference(self, prune_read_op)

    def _sync_with_cpp(self) -> None:
        """Fluid programs call this after editing a description; there is one truth here, so nothing to do."""

    # ---- text and bytes ----------------------------------------------------------------------
    @property
    def desc(self) -> ProgramDesc:
        """The methods of Fluid's description of this Program."""
        from millstream.ir.desc import ProgramDesc

        return ProgramDesc(self)

    def serialize_to_string(self) -> bytes:
        """The Program as ProgramDesc bytes (see :mod:`millstream.ir.proto`)."""
        from millstream.ir import proto

        return proto.program_to_bytes(self)

    @staticmethod
    def parse_from_string(binary_str: bytes) -> Program:
        """The Program in ProgramDesc bytes; raises FileFormatError when they are not one."""
        from millstream.ir import proto

        return proto.program_from_bytes(binary_str)

    def to_string(self, throw_on_error: bool = False, with_details: bool = False) -> str:
        """The ProgramDesc as protobuf text, as 1.8.5 prints it; `pprint_program_codes` of fluid.debugger prints code.

        Args:
            throw_on_error: accepted; what cannot be stored always raises.
            with_details: also what no ProgramDesc holds (stop_gradient, …); the text cannot be parsed then.

        Raises ArgumentError: an argument is no bool.
        """
        from millstream.ir import proto_text

        proto_text.check_flags(throw_on_error=throw_on_error, with_details=with_details)
        return proto_text.program_text(self, with_details)

    def __repr__(self) -> str:
        n = sum(len(b.ops) for b in self.blocks)
        return f"<Program: {len(self.blocks)} blocks, {n} ops, version {self._version}>"

    def __str__(self) -> str:
        return self.to_string()


class _Defaults:
    main = Program()
    startup = Program()


def default_main_program() -> Program:
    """The Program to which layers append."""
    return _Defaults.main


def default_startup_program() -> Program:
    """The Program to which initialisers append."""
    return _Defaults.startup


def switch_main_program(program: Program) -> Program:
    old, _Defaults.main = _Defaults.main, program
    return old


def switch_startup_program(program: Program) -> Program:
    old, _Defaults.startup = _Defaults.startup, program
    return old


@contextmanager
def program_guard(main_program: Program, startup_program: Program | None = None) -> Iterator[None]:
    """Layers inside append to `main_program`, initialisers to `startup_program`."""
    for given, what in ((main_program, "main_program"), (startup_program, "startup_program")):
        if given is not None and not isinstance(given, Program):
            raise TypeError(f"program_guard: {what} must be a Program, received {type(given).__name__}")
    old_main = switch_main_program(main_program)
    old_startup = switch_startup_program(startup_program) if startup_program is not None else None
    try:
        yield
    finally:
        switch_main_program(old_main)
        if old_startup is not None:
            switch_startup_program(old_startup)


class _NameScopes:
    """Counts children so that two scopes of one name under one parent differ (``a/``, ``a_1/``)."""

    def __init__(self) -> None:
        self.stack: list[tuple[str, dict[str, int]]] = [("", {})]


_scopes = _NameScopes()


@contextmanager
def name_scope(prefix: str | None = None) -> Iterator[None]:
    """Prefix operators' namescope for display; does not change variable names."""
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"name_scope takes a str, received {prefix!r}")
    path, children = _scopes.stack[-1]
    key = prefix or ""
    n = children.get(key, 0)
    children[key] = n + 1
    part = key if n == 0 else f"{key}_{n}"
    program = default_main_program()
    old = program._name_scope
    full = f"{path or '/'}{part}/"
    _scopes.stack.append((full, {}))
    program._name_scope = full
    try:
        yield
    finally:
        _scopes.stack.pop()
        program._name_scope = old
