"""save_inference_model and load_inference_model: a pruned Program with feed and fetch operators, and its parameters."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from millstream.errors import InvalidProgramError, MissingFileError
from millstream.files.atomic import write_bytes
from millstream.fluid.io.variables import load_persistables, program_of, save_persistables
from millstream.fluid.layer_helper import LayerHelper
from millstream.ir import walk
from millstream.ir.program import Program, program_guard
from millstream.ir.proto import program_from_bytes, program_to_bytes
from millstream.ir.types import VarType
from millstream.ir.variable import Variable

MODEL_FILE = "__model__"


def prepend_feed_ops(
    inference_program: Program, feed_target_names: Sequence[str], feed_holder_name: str = "feed"
) -> None:
    """Put a ``feed`` operator for each name at the start (the last name first), with its index as `col`.

    Raises ValueError: a name is not in the Program's global Block.
    """
    if not feed_target_names:
        return
    block = inference_program.global_block()
    holder = block.create_var(name=feed_holder_name, type=VarType.FEED_MINIBATCH, persistable=True)
    for col, name in enumerate(feed_target_names):
        out = block.var(name)
        block._prepend_op(type="feed", inputs={"X": [holder]}, outputs={"Out": [out]}, attrs={"col": col})


def append_fetch_ops(
    inference_program: Program, fetch_target_names: Sequence[str], fetch_holder_name: str = "fetch"
) -> None:
    """Put a ``fetch`` operator for each name at the end, with its index as `col`."""
    block = inference_program.global_block()
    holder = block.create_var(name=fetch_holder_name, type=VarType.FETCH_LIST, persistable=True)
    for col, name in enumerate(fetch_target_names):
        block.append_op(type="fetch", inputs={"X": [name]}, outputs={"Out": [holder]}, attrs={"col": col})


def get_inference_program(target_vars: Any, main_program: Program | None = None) -> Program:
    """A copy of `main_program` with only what `target_vars` (Variables, evaluators or metrics) need, in test form."""
    program = program_of(main_program, "get_inference_program")
    targets: list[Any] = []
    for target in target_vars if isinstance(target_vars, (list, tuple)) else [target_vars]:
        states = getattr(target, "states", None)
        if states is None:
            targets.append(target)
        else:
            targets.extend([*states, *getattr(target, "metrics", [])])
    return walk.for_inference(walk.prune(program, [], targets))


def save_inference_model(
    dirname: str,
    feeded_var_names: str | Sequence[str],
    target_vars: Variable | Sequence[Variable],
    executor: Any,
    main_program: Any = None,
    model_filename: str | None = None,
    params_filename: str | None = None,
    export_for_deployment: bool = True,
    program_only: bool = False,
) -> list[str]:
    """Save what is needed to compute `target_vars` from `feeded_var_names`: a pruned Program and its parameters.

    As Fluid 1.8.5 does, a ``scale`` operator (factor 1) per target is appended to `main_program` itself, and its
    output is what the saved Program fetches.

    Args:
        dirname: directory, made if needed.
        feeded_var_names: names of the inputs.
        target_vars: Variables to compute.
        executor: an Executor; values are taken from the current scope.
        main_program: a Program or CompiledProgram; the default main Program when None.
        model_filename: file of the Program, ``__model__`` when None (only the last part of a path counts).
        params_filename: one file for all parameters; None: a file each.
        export_for_deployment: False: save the whole Program (``__model__.main_program``) with all that persists.
        program_only: save no parameters.

    Returns:
        The names that the saved Program fetches.

    Raises:
        ValueError: names that are no strings or not in the Program, targets that are no Variables, inputs that the
        targets do not need (export_for_deployment; nothing is written then).
    """
    feeds = [feeded_var_names] if isinstance(feeded_var_names, str) else list(feeded_var_names or [])
    if not all(isinstance(name, str) for name in feeds):
        raise ValueError("'feed_var_names' should be a list of str.")
    targets = [target_vars] if isinstance(target_vars, Variable) else list(target_vars)
    if not targets or not all(isinstance(var, Variable) for var in targets):
        raise ValueError("'target_vars' should be a list of Variable.")
    program = program_of(main_program, "save_inference_model")
    if program is not main_program and main_program is not None:
        warnings.warn("save_inference_model: a CompiledProgram is saved as the Program inside it", stacklevel=2)
    absent = [name for name in feeds if not program.global_block().has_var(name)]
    if absent:
        inputs = ", ".join(repr(v.name) for v in program.global_block().vars.values() if v.is_data)
        raise InvalidProgramError(
            f"save_inference_model: feeded_var_names: {absent[0]!r} is no variable of the program, "
            f"whose inputs are {inputs or 'none'}"
        )
    if "auc" in {op.type for op in walk.all_ops(program)}:
        warnings.warn(
            "save_inference_model: the program holds an auc operator, whose state training changes; "
            "save a program without it", stacklevel=2,
        )
    if export_for_deployment:
        _check_needed(program, feeds, targets)
    scaled = _append_scales(program, targets)
    os.makedirs(dirname, exist_ok=True)
    if export_for_deployment:
        saved = _deployed(program, feeds, scaled)
        path = os.path.join(dirname, os.path.basename(model_filename or "") or MODEL_FILE)
    else:
        saved = program
        path = os.path.join(dirname, (os.path.basename(model_filename or "") or MODEL_FILE) + ".main_program")
    write_bytes(path, program_to_bytes(saved))
    if program_only:
        warnings.warn("save_inference_model: program_only is True, so no parameters are saved", stacklevel=2)
    else:
        save_persistables(executor, dirname, saved, os.path.basename(params_filename) if params_filename else None)
    return scaled


def _check_needed(program: Program, feeds: list[str], targets: list[Variable]) -> None:
    """Refuse an input that no operator on the way to the targets reads, as Fluid 1.8.5 does."""
    root, found = program.global_block(), {var.name for var in targets}
    for op in walk.needed_ops(root, list(found), feeds):
        found.update(walk.reads_of(op), walk.writes_of(op))
    unneeded = [name for name in feeds if name not in found]
    if unneeded:
        raise InvalidProgramError(
            f"save_inference_model: feeded_var_names: the targets ({', '.join(repr(v.name) for v in targets)}) do not "
            f"need {unneeded[0]!r}: leave it out of the inputs"
        )


def _append_scales(program: Program, targets: list[Variable]) -> list[str]:
    names = []
    with program_guard(program):
        for i, var in enumerate(targets):
            helper = LayerHelper("scale", name=f"save_infer_model/scale_{i}")
            out = helper.create_variable_for_type_inference(var.dtype)
            program.global_block().append_op(
                type="scale",
                inputs={"X": [var]},
                outputs={"Out": [out]},
                attrs={"scale": 1.0, "bias": 0.0, "bias_after_scale": True},
            )
            names.append(out.name)
    return names


def _deployed(program: Program, feeds: list[str], targets: list[str]) -> Program:
    """The pruned copy in test form, with feed and fetch operators."""
    copy = walk.clone(program)
    root = copy.global_block()
    root.ops = [op for op in root.ops if op.type not in ("feed", "fetch")]
    for op in root.ops:
        op.is_target = False
    pruned = walk.for_inference(walk.prune(copy, feeds, targets))
    prepend_feed_ops(pruned, feeds)
    append_fetch_ops(pruned, targets)
    return pruned


def load_inference_model(
    dirname: str | None,
    executor: Any,
    model_filename: str | bytes | None = None,
    params_filename: str | bytes | None = None,
    pserver_endpoints: Sequence[str] | None = None,
) -> list[Any]:
    """Load a Program saved for inference by any Fluid 1.x, and its parameters into the current scope.

    Args:
        dirname: its directory; None: `model_filename` and `params_filename` are the contents (bytes).
        executor: an Executor.
        pserver_endpoints: replace the endpoints of distributed lookups in the Program.

    Returns:
        [Program, names to feed, Variables to fetch], to be used as
        ``executor.run(program, feed={name: …}, fetch_list=variables)``.

    Raises:
        ValueError: no such directory. MissingFileError, FileFormatError: files missing or damaged; the scope is as
        it was.
    """
    if dirname is None:
        if not isinstance(params_filename, (bytes, bytearray, memoryview)):
            raise ValueError("The path of params cannot be None when the directory path is None.")
        if not isinstance(model_filename, (bytes, bytearray, memoryview)):
            raise ValueError("load_inference_model: without dirname, model_filename must be the program as bytes")
        data, source = bytes(model_filename), "<memory>"
    else:
        if not os.path.isdir(dirname):
            raise ValueError(f"There is no directory named '{dirname}'")
        source = os.path.join(dirname, os.path.basename(model_filename or MODEL_FILE))  # type: ignore[arg-type,type-var]
        if not os.path.isfile(source):
            raise MissingFileError(
                f"program file {source!r} does not exist; it was perhaps saved with another model_filename"
            )
        with open(source, "rb") as fh:
            data = fh.read()
        if params_filename is not None:
            params_filename = os.path.basename(params_filename)  # type: ignore[type-var]
    program = program_from_bytes(data, source)
    load_persistables(executor, dirname, program, params_filename)
    if pserver_endpoints:
        for op in walk.all_ops(program):
            if op.has_attr("epmap"):
                op._set_attr("epmap", list(pserver_endpoints))
    feeds, fetches = walk.ends(program, source)
    block = program.global_block()
    return [program, feeds, [block.var(name) for name in fetches]]

