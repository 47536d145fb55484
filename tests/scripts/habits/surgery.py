import paddle
from paddle.fluid.framework import Program, Block, Variable, Operator, Parameter, grad_var_name
from paddle.fluid import core
from kit import draw, fluid, np, section, show
L = fluid.layers
pl = fluid.CPUPlace()
def x_dtype(n):
    return fluid.framework.convert_np_dtype_to_dtype_(n)


X = np.arange(6).reshape(2, 3).astype("float32")


@section
def append_ops_by_hand():
    prog = fluid.default_main_program()
    block = prog.global_block()
    x = block.create_var(name="x", shape=[-1, 3], dtype="float32", is_data=True, need_check_feed=True)
    w = block.create_parameter(name="w", shape=[3, 2], dtype="float32",
                               initializer=fluid.initializer.Constant(0.5))
    print(type(w).__name__, w.shape, w.trainable, w.optimize_attr, w.regularizer)
    out = block.create_var(name="out", dtype="float32")
    op = block.append_op(type="mul", inputs={"X": [x], "Y": [w]}, outputs={"Out": [out]},
                         attrs={"x_num_col_dims": 1, "y_num_col_dims": 1})
    print(out.shape, op.type, op.input("X"), op.output("Out"), op.input_names, op.output_names)
    print(op.attr("x_num_col_dims"), op.has_attr("nothing"), op.attr_type("x_num_col_dims"))
    r = block.create_var(name="r", dtype="float32")
    block.append_op(type="relu", inputs={"X": [out]}, outputs={"Out": [r]})
    print([o.type for o in block.ops])
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    fluid.global_scope().var("w").get_tensor().set(np.ones((3, 2), "float32"), pl)
    show(exe.run(feed={"x": X}, fetch_list=[out, "r"]))


@section
def insert_and_remove_ops():
    x = L.data("x", [3])
    y = L.scale(x, 2.0)
    z = L.relu(y)
    block = fluid.default_main_program().global_block()
    t = block.create_var(name="t", dtype="float32", shape=y.shape)
    block._insert_op(1, type="scale", inputs={"X": y}, outputs={"Out": t}, attrs={"scale": -1.0})
    print([(o.type, o.input_arg_names, o.output_arg_names) for o in block.ops])
    block.ops[2]._rename_input(y.name, t.name)
    exe = fluid.Executor(pl)
    show(exe.run(feed={"x": X - 2}, fetch_list=[z]))
    block._prepend_op(type="scale", inputs={"X": x}, outputs={"Out": x}, attrs={"scale": 3.0, "bias": 1.0})
    print([o.type for o in block.ops])
    show(exe.run(feed={"x": X - 2}, fetch_list=[z, y]))
    block._remove_op(0)
    print([o.type for o in block.ops], len(block.ops))
    show(exe.run(feed={"x": X - 2}, fetch_list=[z]))


@section
def set_attributes():
    x = L.data("x", [3])
    y = L.dropout(x, 0.3, dropout_implementation="upscale_in_train")
    z = L.scale(x, 2.0)
    ops = fluid.default_main_program().global_block().ops
    ops[0]._set_attr("is_test", True)
    ops[1]._set_attr("scale", 7.0)
    print(ops[0].attr("is_test"), round(ops[1].attr("scale"), 3))
    exe = fluid.Executor(pl)
    show(exe.run(feed={"x": X}, fetch_list=[y, z]))
    print("scale" in ops[1].attr_names, "op_role" in ops[1].all_attrs())
    for n in ("dropout_prob", "seed", "dropout_implementation", "fix_seed"):
        v = ops[0].attr(n)
        print(n, round(v, 4) if isinstance(v, float) else v)


@section
def desc_level():
    prog = fluid.Program()
    desc = prog.desc
    print(desc.num_blocks(), prog.num_blocks, prog.global_block().idx, prog.global_block().parent_idx)
    with fluid.program_guard(prog):
        x = L.data("x", [3])
        y = L.fc(x, 2, act="relu", name="h")
    b = prog.desc.block(0)
    print(b.op_size(), b.op(0).type(), b.op(0).input_arg_names(), b.op(0).output_arg_names())
    print(b.op(0).input("X"), b.op(0).output("Out"), sorted(b.op(0).input_names()), b.op(0).attr("x_num_col_dims"))
    v = b.find_var(b"x" if False else "x".encode("ascii"))
    print(v.shape(), v.dtype(), v.type(), v.persistable(), v.name(), v.lod_level())
    print(sorted(n.name() for n in b.all_vars()))
    print(b.has_var("x".encode("ascii")), b.has_var("nope".encode("ascii")))
    s = prog.desc.serialize_to_string()
    q = Program.parse_from_string(s)
    print(type(s).__name__, [o.type for o in q.global_block().ops], q.global_block().var("x").shape)
    print(q.to_string(True) == prog.to_string(True), len(q.blocks))


@section
def block_queries():
    x = L.data("x", [3])
    y = L.fc(x, 2, name="h")
    b = fluid.default_main_program().global_block()
    print(b.has_var("x"), b.has_var("q"), b.var("x").name)
    try:
        b.var("q")
    except ValueError as e:
        print("ValueError")
    print(sorted(b.vars), [p.name for p in b.all_parameters()], [p.name for p in b.iter_parameters()])
    print(x.name, x.shape, x.dtype, x.lod_level, x.persistable, x.stop_gradient, x.type, x.is_data)
    print(b._find_var_recursive("h.w_0").name, b._find_var_recursive("nope"))
    b._rename_var("h.tmp_1", "renamed")
    print(b.has_var("renamed"), b.ops[-1].output_arg_names)
    b._remove_var("h.b_0") if False else None
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(feed={"x": X}, fetch_list=["renamed"]))
    print(x.block.idx, x.block.program is fluid.default_main_program())
    print([v.name for v in fluid.default_main_program().list_vars()])
    print([p.name for p in fluid.default_main_program().all_parameters()])


@section
def grad_names_and_roles():
    x = L.data("x", [3])
    y = L.data("y", [1])
    p = L.fc(x, 1, name="h")
    loss = L.mean(L.square_error_cost(p, y))
    pg = fluid.backward.append_backward(loss)
    print([(a.name, b.name) for a, b in pg], grad_var_name("h.w_0"))
    prog = fluid.default_main_program()
    OpRole = core.op_proto_and_checker_maker.OpRole
    key = core.op_proto_and_checker_maker.kOpRoleAttrName()
    kv = core.op_proto_and_checker_maker.kOpRoleVarAttrName()
    print(key, kv, int(OpRole.Forward), int(OpRole.Backward), int(OpRole.Optimize), int(OpRole.Loss), int(OpRole.LRSched), int(OpRole.RPC), int(OpRole.Dist))
    for o in prog.global_block().ops:
        print(o.type, o.attr(key), (o.attr(kv) if o.has_attr(kv) else None) or "")
    with prog._optimized_guard(pg[0]):
        for a, b in pg:
            prog.global_block().append_op(type="sgd", inputs={"Param": a, "Grad": b, "LearningRate": L.fill_constant([1], "float32", 0.1)}, outputs={"ParamOut": a})
    print([(o.type, o.attr(key)) for o in prog.global_block().ops][-4:])
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    for i in range(3):
        show(exe.run(feed={"x": X, "y": X[:, :1]}, fetch_list=[loss, "h.w_0@GRAD", "h.w_0"]))


@section
def clone_and_prune():
    x = L.data("x", [3])
    y = L.data("y", [1])
    h = L.fc(x, 4, act="tanh", name="h")
    d = L.dropout(h, 0.5)
    p = L.fc(d, 1, name="o")
    loss = L.mean(L.square_error_cost(p, y))
    main = fluid.default_main_program()
    test = main.clone(for_test=True)
    fluid.optimizer.Adam(0.1).minimize(loss)
    after = main.clone(for_test=True)
    same_ = main.clone()
    print(len(main.global_block().ops), len(test.global_block().ops), len(after.global_block().ops), len(same_.global_block().ops))
    pr = main._prune([p])
    print([o.type for o in pr.global_block().ops])
    pr2 = main._prune_with_input([h.name], [p]) if hasattr(main, "_prune_with_input") else None
    print([o.type for o in pr2.global_block().ops] if pr2 else "")
    inf = main._inference_optimize(prune_read_op=False)
    print([bool(o.attr("is_test")) for o in inf.global_block().ops if o.has_attr("is_test")])
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    draw()
    show(exe.run(test, feed={"x": X, "y": X[:, :1]}, fetch_list=[loss, p]))
    show(exe.run(after, feed={"x": X, "y": X[:, :1]}, fetch_list=[loss.name, p.name]))
    print(test.random_seed, main.random_seed)
    main.random_seed = 90
    print(main.clone().random_seed, sorted(v.name for v in test.list_vars() if v.persistable))


@section
def prints():
    x = L.data("x", [3])
    y = L.fc(x, 2, name="h")
    main = fluid.default_main_program()
    print("type: \"mul\"" in str(main), "type: \"mul\"" in main.to_string(throw_on_error=True, with_details=False))
    print("vars {" in str(main), "name: \"x\"" in str(main))
    t = main.to_string(True, True)
    print(t.count("ops {"), t.count("vars {"), "trainable" in t)
    print("\n".join(l.strip() for l in main.global_block().ops[0].to_string(True).splitlines() if "type: \"mul\"" in l or "parameter" in l))
    print(main.global_block().ops[0].to_string(True).count("inputs {"))
    print(x.to_string(True).splitlines()[0], x.to_string(True).count("name"))


@section
def variables_kinds():
    b = fluid.default_main_program().current_block()
    a = b.create_var(name="arr", type=core.VarDesc.VarType.LOD_TENSOR_ARRAY, dtype="float32")
    s = b.create_var(name="sr", type=core.VarDesc.VarType.SELECTED_ROWS, dtype="float32", shape=[4, 2])
    t = b.create_var(dtype=core.VarDesc.VarType.FP64, shape=[2], persistable=True)
    print(a.type, s.type, t.dtype, t.name, t.persistable, s.shape)
    print(core.VarDesc.VarType.INT64, core.VarDesc.VarType.FP32 == x_dtype("float32"))
    g = L.create_global_var([2], 3.0, "float32", persistable=True, name="g")
    p = L.create_parameter([2, 2], "float32", name="p", default_initializer=fluid.initializer.Constant(2.0))
    print(g.shape, g.persistable, p.shape, isinstance(p, Parameter), isinstance(g, Parameter))
    exe = fluid.Executor(pl)
    exe.run(fluid.default_startup_program())
    show(exe.run(fetch_list=[g, p]))




@section
def sub_blocks():
    prog = fluid.default_main_program()
    i = L.fill_constant([1], "int64", 0)
    n = L.fill_constant([1], "int64", 3)
    c = L.less_than(i, n)
    w = L.While(c)
    with w.block():
        print(prog.current_block().idx, prog.current_block().parent_idx, prog.current_block_idx)
        L.increment(i, 1, in_place=True)
        L.less_than(i, n, cond=c)
    print(prog.current_block().idx, prog.num_blocks, [o.type for o in prog.block(1).ops])
    op = [o for o in prog.global_block().ops if o.type == "while"][0]
    print(op.attr("sub_block").id, op._block_attr_id("sub_block"))
    b = prog._create_block()
    print(b.idx, prog.current_block_idx)
    prog._rollback()
    print(prog.current_block_idx)
    exe = fluid.Executor(pl)
    show(exe.run(fetch_list=[i]))
