"""Records the files beside it; run it with PaddlePaddle 1.8.5: ``python record.py <directory>``.

Only `op_callstack` is changed afterwards (to a made-up line), because it names files of the recording machine.
"""

import os
import sys

import numpy as np
import paddle.fluid as fluid
from paddle.fluid.proto import framework_pb2

OUT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(__file__))
CALLSTACK = ['  File "train.py", line 7, in build\n    out = fluid.layers.fc(x, 3)\n']


def scrubbed(data):
    """`data` with every op_callstack replaced; all else as it was."""
    desc = framework_pb2.ProgramDesc()
    desc.ParseFromString(data)
    assert desc.SerializeToString() == data
    for block in desc.blocks:
        for op in block.ops:
            for attr in op.attrs:
                if attr.name == "op_callstack":
                    del attr.strings[:]
                    attr.strings.extend(CALLSTACK)
    return desc.SerializeToString()


def stored(name):
    with open(os.path.join(OUT, name), "rb") as fh:
        return fh.read()


def put(name, data):
    with open(os.path.join(OUT, name), "wb") as fh:
        fh.write(data)


def training():
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 3
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        ids = fluid.data("ids", [None, 1], "int64", lod_level=1)
        y = fluid.layers.data("y", [1])
        emb = fluid.layers.embedding(ids, [5, 3], is_sparse=True)
        bag = fluid.layers.sequence_pool(emb, "sum")
        out = fluid.layers.fc(fluid.layers.dropout(bag, 0.5), 2, act="tanh")
        loss = fluid.layers.mean(fluid.layers.square(out - y))
        fluid.optimizer.Adam(0.1).minimize(loss)
        main.global_block().var("embedding_0.w_0@GRAD").persistable = True
    exe = fluid.Executor(fluid.CPUPlace())
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        put("train.pdmodel", scrubbed(main.desc.serialize_to_string()))
        put("startup.pdmodel", scrubbed(startup.desc.serialize_to_string()))
        t = fluid.create_lod_tensor(np.array([[3], [1], [3], [0]], "int64"), [[3, 1]], fluid.CPUPlace())
        exe.run(main, feed={"ids": t, "y": np.ones((2, 1), "float32")})
        fluid.io.save_vars(exe, OUT, main, [main.global_block().var("embedding_0.w_0@GRAD")])
        os.rename(os.path.join(OUT, "embedding_0.w_0@GRAD"), os.path.join(OUT, "rows.selected"))
        main.global_block().var("embedding_0.w_0@GRAD").persistable = False
        fluid.save(main, os.path.join(OUT, "train"))
        put("train.pdmodel", scrubbed(stored("train.pdmodel")))
        fluid.io.save_inference_model(OUT, ["ids"], [out], exe, main, "__model__", "__params__")
        put("__model__", scrubbed(stored("__model__")))
        fluid.io.save_params(exe, os.path.join(OUT, "separate"), main)


def control_flow():
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        reader = fluid.layers.py_reader(4, [(-1, 2), (-1, 1)], ["float32", "int64"], lod_levels=[0, 1])
        x, _ = fluid.layers.read_file(reader)
        x.stop_gradient = False
        i = fluid.layers.fill_constant([1], "int64", 0)
        n = fluid.layers.fill_constant([1], "int64", 3)
        array = fluid.layers.array_write(fluid.layers.fc(x, 2), i)
        cond = fluid.layers.less_than(i, n)
        loop = fluid.layers.While(cond)
        with loop.block():
            last = fluid.layers.array_read(array, i)
            fluid.layers.increment(i)
            fluid.layers.array_write(fluid.layers.scale(last, 2.0), i, array)
            fluid.layers.less_than(i, n, cond=cond)
        loss = fluid.layers.mean(fluid.layers.array_read(array, n))
        fluid.backward.append_backward(loss)
        kinds, block = fluid.core.VarDesc.VarType, main.global_block()
        block.create_var(name="bare")
        block.create_var(name="raw", type=kinds.RAW)
        block.create_var(name="rows", type=kinds.SELECTED_ROWS, shape=[4, 2], dtype="float64")
        block.create_var(name="rank", type=kinds.LOD_RANK_TABLE)
    put("while.pdmodel", scrubbed(main.desc.serialize_to_string()))


def tensors():
    main = fluid.Program()
    scope = fluid.Scope()
    exe = fluid.Executor(fluid.CPUPlace())
    made = []
    for dtype in ("float32", "float64", "int32", "int64", "int16", "int8"):
        v = main.global_block().create_var(name="t_" + dtype, shape=[6, 2], dtype=dtype, persistable=True)
        value = fluid.LoDTensor()
        value.set(np.arange(12).reshape(6, 2).astype(dtype), fluid.CPUPlace())
        if dtype == "float32":
            value.set_lod([[0, 2, 2, 6]])
        if dtype == "float64":
            value.set_lod([[0, 1, 3], [0, 2, 4, 6]])
        scope.var(v.name).get_tensor().set(np.array(value), fluid.CPUPlace())
        scope.find_var(v.name).get_tensor().set_lod(value.lod())
        made.append(v)
    with fluid.scope_guard(scope):
        fluid.io.save_vars(exe, OUT, main, made)
        fluid.io.save_vars(exe, OUT, main, made, filename="t_combined")


def dygraph():
    with fluid.dygraph.guard(), fluid.unique_name.guard():
        net = fluid.dygraph.Linear(3, 2)
        opt = fluid.optimizer.Adam(0.1, parameter_list=net.parameters())
        loss = fluid.layers.mean(net(fluid.dygraph.to_variable(np.ones((2, 3), "float32"))))
        loss.backward()
        opt.minimize(loss)
        fluid.save_dygraph(net.state_dict(), os.path.join(OUT, "dygraph"))
        fluid.save_dygraph(opt.state_dict(), os.path.join(OUT, "dygraph"))


training()
control_flow()
tensors()
dygraph()
