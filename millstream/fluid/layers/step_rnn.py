"""StaticRNN and DynamicRNN: a user's own step Block, over fixed-length and over variable-length sequences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millstream.errors import InvalidProgramError
from millstream.fluid.layer_helper import LayerHelper
from millstream.ir import names, walk
from millstream.ir.block import Block
from millstream.ir.types import VarType
from millstream.ir.variable import Variable

__all__ = ["DynamicRNN", "StaticRNN"]


def _variable(value: Any, layer: str, what: str) -> Variable:
    if not isinstance(value, Variable):
        raise TypeError(f"The type of '{what}' in {layer} must be Variable, but received {type(value).__name__}")
    return value


class _Memory:
    """A state of StaticRNN: initial value outside, previous and next value inside the step."""

    def __init__(self, init: Variable, pre_mem: Variable) -> None:
        self.init = init
        self.pre_mem = pre_mem
        self.mem: Variable | None = None


class StaticRNN:
    """A step Block over dimension 0 of its inputs; all sequences have one length.

    Use::

        rnn = fluid.layers.StaticRNN()
        with rnn.step():
            word = rnn.step_input(x)              # x: [T, batch, d]
            prev = rnn.memory(shape=[-1, h], batch_ref=word)
            hidden = fluid.layers.fc([word, prev], size=h, act='relu')
            rnn.update_memory(prev, hidden)
            rnn.step_output(hidden)
        out = rnn()                               # [T, batch, h]
    """

    BEFORE_RNN_BLOCK, IN_RNN_BLOCK, AFTER_RNN_BLOCK = 0, 1, 2

    def __init__(self, name: str | None = None) -> None:
        self.helper = LayerHelper("static_rnn", name=name)
        self.memories: dict[str, _Memory] = {}
        self.inputs: list[Variable] = []
        self.outputs: list[Variable] = []
        self.status = StaticRNN.BEFORE_RNN_BLOCK
        self.seq_len: int | None = None
        self.step_block: Block | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """The step Block."""
        if self.status != StaticRNN.BEFORE_RNN_BLOCK:
            raise InvalidProgramError("StaticRNN: step() can be entered once")
        program = self.helper.main_program
        self.step_block = program._create_block()
        self.status = StaticRNN.IN_RNN_BLOCK
        try:
            yield
        finally:
            program._rollback()
        self.status = StaticRNN.AFTER_RNN_BLOCK
        self._complete()

    def _inside(self, method: str) -> Block:
        if self.status != StaticRNN.IN_RNN_BLOCK or self.step_block is None:
            raise InvalidProgramError(f"StaticRNN.{method}: call it inside `with rnn.step():`")
        return self.step_block

    def _parent(self) -> Block:
        assert self.step_block is not None
        parent = self.step_block.parent_block
        assert parent is not None
        return parent

    def memory(
        self,
        init: Variable | None = None,
        shape: Any = None,
        batch_ref: Variable | None = None,
        init_value: float = 0.0,
        init_batch_dim_idx: int = 0,
        ref_batch_dim_idx: int = 1,
    ) -> Variable:
        """The previous value of a state.

        Args:
            init: initial value; or None, then `shape` (with -1 at `init_batch_dim_idx`) and `batch_ref`, whose
                dimension `ref_batch_dim_idx` is the batch size, say what to fill with `init_value`.
        """
        block = self._inside("memory")
        if init is None:
            if shape is None or batch_ref is None:
                raise InvalidProgramError("StaticRNN.memory: give init, or both shape and batch_ref")
            init = self._boot(_variable(batch_ref, "StaticRNN.memory", "batch_ref"), shape, init_value,
                              init_batch_dim_idx, ref_batch_dim_idx)
        _variable(init, "StaticRNN.memory", "init")
        pre_mem = block.create_var(
            name=names.generate("@".join([self.helper.name, "mem"])), dtype=init.dtype, shape=init.shape
        )
        self.memories[pre_mem.name] = _Memory(init, pre_mem)
        return pre_mem

    def _boot(self, batch_ref: Variable, shape: Any, value: float, out_dim: int, ref_dim: int) -> Variable:
        parent = self._parent()
        name = names.generate("@".join([self.helper.name, "memory_boot"]))
        boot = parent.create_var(name=name, shape=list(shape), dtype=batch_ref.dtype, persistable=False)
        # A step input has one dimension fewer inside; outside, its batch stands at ref_dim.
        outside = parent._find_var_recursive(batch_ref.name)
        outside = batch_ref if outside is None else outside
        parent.append_op(
            type="fill_constant_batch_size_like",
            inputs={"Input": [outside]},
            outputs={"Out": [boot]},
            attrs={
                "value": value,
                "shape": list(boot.shape),
                "dtype": boot.dtype,
                "input_dim_idx": ref_dim,
                "output_dim_idx": out_dim,
            },
        )
        return boot

    def step_input(self, x: Variable) -> Variable:
        """The present step's slice of `x` ([T, …] outside, […] inside)."""
        block = self._inside("step_input")
        _variable(x, "StaticRNN.step_input", "x")
        if self.seq_len is None:
            self.seq_len = x.shape[0]
        elif x.shape[0] != -1 and self.seq_len != x.shape[0]:
            raise InvalidProgramError(
                f"StaticRNN: all step inputs need one length, received {x.describe()} after length {self.seq_len}"
            )
        inside = block.create_var(name=x.name, dtype=x.dtype, shape=list(x.shape[1:]), type=x.type)
        self.inputs.append(inside)
        return inside

    def step_output(self, o: Variable) -> None:
        """Collect `o` of every step."""
        block = self._inside("step_output")
        _variable(o, "StaticRNN.step_output", "o")
        inside = self.helper.create_variable_for_type_inference(dtype=o.dtype)
        block.append_op(
            type="rnn_memory_helper", inputs={"X": [o]}, outputs={"Out": inside}, attrs={"dtype": o.dtype}
        )
        outside = self._parent().create_var(
            name=inside.name, shape=[self.seq_len if self.seq_len is not None else -1, *inside.shape], dtype=inside.dtype
        )
        self.outputs.append(outside)

    def output(self, *outputs: Variable) -> None:
        """Collect several outputs of every step."""
        for each in outputs:
            self.step_output(each)

    def update_memory(self, mem: Variable, var: Variable) -> None:
        """`var` is the next step's value of the state `mem`."""
        self._inside("update_memory")
        _variable(mem, "StaticRNN.update_memory", "mem")
        _variable(var, "StaticRNN.update_memory", "var")
        if mem.name not in self.memories:
            raise InvalidProgramError(f"StaticRNN.update_memory: {mem.name!r} was not made by memory()")
        self.memories[mem.name].mem = var

    def _complete(self) -> None:
        block = self.step_block
        assert block is not None
        if not self.inputs:
            raise InvalidProgramError("StaticRNN: call step_input() at least once inside step()")
        for memory in self.memories.values():
            if memory.mem is None:
                raise InvalidProgramError(f"StaticRNN: the state {memory.pre_mem.name!r} is never updated (update_memory)")
        states = []
        program = self.helper.main_program
        current, program.current_block_idx = program.current_block_idx, block.idx
        try:
            for memory in self.memories.values():
                assert memory.mem is not None
                new = self.helper.create_variable_for_type_inference(dtype=memory.mem.dtype)
                block.append_op(
                    type="rnn_memory_helper",
                    inputs={"X": [memory.mem]},
                    outputs={"Out": [new]},
                    attrs={"dtype": memory.mem.dtype},
                )
                states.append(new.name)
        finally:
            program.current_block_idx = current
        self._append_recurrent(block, states)

    def _append_recurrent(self, block: Block, states: list[str]) -> None:
        parent = self._parent()
        local = {v.name for v in self.inputs} | set(self.memories)
        parameters = []
        for name in walk.outer_reads(block):
            if name not in local:
                var = parent._find_var_recursive(name)
                if var is not None:
                    parameters.append(var)
        inputs = [parent._var_recursive(v.name) for v in self.inputs]
        scopes = parent.create_var(name=names.generate("_generated_var"), type=VarType.STEP_SCOPES)
        parent.append_op(
            type="recurrent",
            inputs={
                "inputs": inputs,
                "initial_states": [m.init for m in self.memories.values()],
                "parameters": parameters,
            },
            outputs={"outputs": self.outputs, "step_scopes": [scopes]},
            attrs={
                "has_states": bool(self.memories),
                "ex_states": [m.pre_mem.name for m in self.memories.values()],
                "states": states,
                "reverse": False,
                "is_train": True,
                "sub_block": block,
            },
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The collected outputs: one Variable, or a list."""
        if self.status != StaticRNN.AFTER_RNN_BLOCK:
            raise InvalidProgramError("StaticRNN: its outputs exist only after the step() block")
        if not self.outputs:
            raise InvalidProgramError("StaticRNN: it has no output; call step_output() inside step()")
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs


class DynamicRNN:
    """A step Block over variable-length sequences; the batch shrinks as sequences end, so nothing is padded.

    Use::

        rnn = fluid.layers.DynamicRNN()
        with rnn.block():
            word = rnn.step_input(sentence)       # LoD level 1
            prev = rnn.memory(shape=[h])
            hidden = fluid.layers.fc([word, prev], size=h, act='relu')
            rnn.update_memory(prev, hidden)
            rnn.output(hidden)
        out = rnn()                               # with the LoD of `sentence`
    """

    BEFORE_RNN, IN_RNN, AFTER_RNN = 0, 1, 2

    def __init__(self, name: str | None = None) -> None:
        self.helper = LayerHelper("dynamic_rnn", name=name)
        self.status = DynamicRNN.BEFORE_RNN
        self.lod_rank_table: Variable | None = None
        self.max_seq_len: Variable | None = None
        self.step_idx: Variable | None = None
        self.zero_idx: Variable | None = None
        self.cond: Variable = self.helper.create_variable_for_type_inference(dtype="bool")
        self.cond.stop_gradient = False
        self.input_array: list[tuple[Variable, str]] = []
        self.output_array: list[Variable] = []
        self.outputs: list[Variable] = []
        self.mem_dict: dict[str, Variable] = {}
        self.mem_link: list[tuple[Variable, Variable]] = []
        self._while: Any = None

    def _inside(self, method: str) -> Block:
        if self.status != DynamicRNN.IN_RNN:
            raise InvalidProgramError(f"DynamicRNN.{method}: call it inside `with rnn.block():`")
        parent = self.helper.main_program.current_block().parent_block
        assert parent is not None
        return parent

    @contextmanager
    def block(self) -> Iterator[None]:
        """The step Block."""
        from millstream.fluid.layers.array import array_to_lod_tensor, array_write
        from millstream.fluid.layers.compare import less_than
        from millstream.fluid.layers.control_flow import While, increment
        from millstream.fluid.layers.tensor import fill_constant

        if self.status != DynamicRNN.BEFORE_RNN:
            raise InvalidProgramError("DynamicRNN: block() can be entered once")
        self.step_idx = fill_constant(shape=[1], dtype="int64", value=0, force_cpu=True)
        self.step_idx.stop_gradient = False
        self.status = DynamicRNN.IN_RNN
        loop = While(self.cond)
        with loop.block():
            yield
            if self.lod_rank_table is None or self.max_seq_len is None:
                raise InvalidProgramError("DynamicRNN: call step_input() at least once inside block()")
            increment(x=self.step_idx, value=1.0, in_place=True)
            for new_mem, mem_array in self.mem_link:
                array_write(x=new_mem, i=self.step_idx, array=mem_array)
            less_than(x=self.step_idx, y=self.max_seq_len, force_cpu=True, cond=self.cond)
        self.status = DynamicRNN.AFTER_RNN
        self.outputs = [array_to_lod_tensor(x=array, table=self.lod_rank_table) for array in self.output_array]

    def step_input(self, x: Variable, level: int = 0) -> Variable:
        """The present step of the sequences of `x` that are still active, longest first."""
        from millstream.fluid.layers.array import array_read

        parent = self._inside("step_input")
        _variable(x, "DynamicRNN.step_input", "x")
        if self.lod_rank_table is None:
            self._start(parent, x, level)
        array = parent.create_var(
            name=names.generate("dynamic_rnn_input_array"), type=VarType.LOD_TENSOR_ARRAY, dtype=x.dtype
        )
        self.input_array.append((array, x.dtype.name))
        parent.append_op(
            type="lod_tensor_to_array",
            inputs={"X": x, "RankTable": self.lod_rank_table},
            outputs={"Out": array},
        )
        assert self.step_idx is not None
        return array_read(array=array, i=self.step_idx)

    def _start(self, parent: Block, x: Variable, level: int) -> None:
        table = parent.create_var(name=names.generate("lod_rank_table"), type=VarType.LOD_RANK_TABLE)
        table.stop_gradient = True
        parent.append_op(type="lod_rank_table", inputs={"X": x}, outputs={"Out": table}, attrs={"level": level})
        longest = parent.create_var(name=names.generate("dynamic_rnn_max_seq_len"), dtype="int64")
        longest.stop_gradient = False
        parent.append_op(type="max_sequence_len", inputs={"RankTable": table}, outputs={"Out": longest})
        self.lod_rank_table, self.max_seq_len = table, longest
        self.cond.stop_gradient = True
        parent.append_op(
            type="less_than",
            inputs={"X": self.step_idx, "Y": longest},
            outputs={"Out": self.cond},
            attrs={"force_cpu": True},
        )

    def _need_start(self, method: str) -> None:
        if self.lod_rank_table is None:
            raise InvalidProgramError(f"DynamicRNN.{method}: call step_input() first; it says how long the sequences are")

    def static_input(self, x: Variable) -> Variable:
        """All of `x` at every step, its sequences ordered (and cut) like the step inputs'."""
        from millstream.fluid.layers.array import shrink_memory

        parent = self._inside("static_input")
        _variable(x, "DynamicRNN.static_input", "x")
        self._need_start("static_input")
        ordered = parent.create_var(
            name=names.generate("dynamic_rnn_static_input_reordered"), dtype=x.dtype, type=VarType.LOD_TENSOR
        )
        parent.append_op(
            type="reorder_lod_tensor_by_rank",
            inputs={"X": [x], "RankTable": [self.lod_rank_table]},
            outputs={"Out": [ordered]},
        )
        assert self.step_idx is not None and self.lod_rank_table is not None
        return shrink_memory(ordered, self.step_idx, self.lod_rank_table)

    def memory(
        self,
        init: Variable | None = None,
        shape: Any = None,
        value: float = 0.0,
        need_reorder: bool = False,
        dtype: Any = "float32",
    ) -> Variable:
        """The previous value of a state.

        Args:
            init: initial value, one row a sequence; or None, then `shape` (without the batch) is filled with `value`.
            need_reorder: `init` depends on the order of the samples (an encoder's last state): sort it like the sequences.
        """
        from millstream.fluid.layers.array import array_read, shrink_memory

        parent = self._inside("memory")
        self._need_start("memory")
        self._zero_index(parent)
        if init is None:
            init = self._filled_memory(parent, shape, value, dtype)
        elif need_reorder:
            _variable(init, "DynamicRNN.memory", "init")
            ordered = parent.create_var(
                name=names.generate("dynamic_rnn_mem_init_reordered"), type=VarType.LOD_TENSOR, dtype=init.dtype
            )
            parent.append_op(
                type="reorder_lod_tensor_by_rank",
                inputs={"X": [init], "RankTable": [self.lod_rank_table]},
                outputs={"Out": [ordered]},
            )
            init = ordered
        _variable(init, "DynamicRNN.memory", "init")
        array = parent.create_var(
            name=names.generate("dynamic_rnn_mem_array"), type=VarType.LOD_TENSOR_ARRAY, dtype=init.dtype
        )
        parent.append_op(type="write_to_array", inputs={"X": init, "I": self.zero_idx}, outputs={"Out": array})
        assert self.step_idx is not None and self.lod_rank_table is not None
        previous = array_read(array=array, i=self.step_idx)
        state = shrink_memory(x=previous, i=self.step_idx, table=self.lod_rank_table)
        self.mem_dict[state.name] = array
        return state

    def _zero_index(self, parent: Block) -> None:
        if self.zero_idx is not None:
            return
        self.zero_idx = parent.create_var(name=names.generate("zero_idx"), dtype="int64")
        parent.append_op(
            type="fill_constant",
            inputs={},
            outputs={"Out": [self.zero_idx]},
            attrs={"shape": [1], "dtype": self.zero_idx.dtype, "value": 0.0, "force_cpu": True},
        )

    def _filled_memory(self, parent: Block, shape: Any, value: float, dtype: Any) -> Variable:
        if shape is None:
            raise InvalidProgramError("DynamicRNN.memory: give init or shape")
        if not self.input_array:
            raise InvalidProgramError("DynamicRNN.memory: call step_input() first; it says how many sequences there are")
        array, kind = self.input_array[0]
        first = parent.create_var(name=names.generate("in0"), dtype=VarType[kind])
        parent.append_op(type="read_from_array", inputs={"X": [array], "I": [self.zero_idx]}, outputs={"Out": [first]})
        init = parent.create_var(name=names.generate("mem_init"), dtype=dtype)
        parent.append_op(
            type="fill_constant_batch_size_like",
            inputs={"Input": [first]},
            outputs={"Out": [init]},
            attrs={"shape": [-1, *shape], "value": float(value), "dtype": init.dtype},
        )
        return init

    def update_memory(self, ex_mem: Variable, new_mem: Variable) -> None:
        """`new_mem` is the next step's value of the state `ex_mem`."""
        self._inside("update_memory")
        _variable(ex_mem, "DynamicRNN.update_memory", "ex_mem")
        _variable(new_mem, "DynamicRNN.update_memory", "new_mem")
        array = self.mem_dict.get(ex_mem.name)
        if array is None:
            raise InvalidProgramError(f"DynamicRNN.update_memory: {ex_mem.name!r} was not made by memory()")
        self.mem_link.append((new_mem, array))

    def output(self, *outputs: Variable) -> None:
        """Collect outputs of every step."""
        from millstream.fluid.layers.array import array_write

        parent = self._inside("output")
        for each in outputs:
            _variable(each, "DynamicRNN.output", "outputs")
            array = parent.create_var(
                name=names.generate("_".join([self.helper.name, "output_array", each.name])),
                type=VarType.LOD_TENSOR_ARRAY,
                dtype=each.dtype,
            )
            assert self.step_idx is not None
            array_write(x=each, i=self.step_idx, array=array)
            self.output_array.append(array)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The collected outputs with the LoD of the step inputs: one Variable, or a list."""
        if self.status != DynamicRNN.AFTER_RNN:
            raise InvalidProgramError("DynamicRNN: its outputs exist only after the block()")
        if not self.outputs:
            raise InvalidProgramError("DynamicRNN: it has no output; call output() inside block()")
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs
