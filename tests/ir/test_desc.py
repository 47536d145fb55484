from millstream import fluid
from millstream.fluid import core


def test_descriptions_read_and_change_the_program():
    main = fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        x = fluid.layers.data("x", [4])
        y = fluid.layers.fc(x, 2, param_attr="w", bias_attr=False)
    block = main.desc.block(0)
    op = block.op(0)
    assert (main.desc.num_blocks(), block.op_size(), op.type(), op.input("X")) == (1, 1, "mul", ["x"])
    assert op.output_arg_names() == [y.name] and op.attr("x_num_col_dims") == 1 and "x_num_col_dims" in op.attr_names()
    w = block.var(b"w")
    assert (w.shape(), w.dtype(), w.persistable()) == ([4, 2], core.VarDesc.VarType.FP32, True)
    y.desc.set_persistable(True)
    assert y.persistable
    op._set_attr("x_num_col_dims", 2)
    assert main.global_block().ops[0].attr("x_num_col_dims") == 2
    assert fluid.Program.parse_from_string(main.desc.serialize_to_string()).global_block().ops[0].type == "mul"


def test_a_variable_of_one_program_is_cloned_into_another():
    main, other = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, fluid.Program()), fluid.unique_name.guard():
        fluid.layers.fc(fluid.layers.data("x", [4]), 2, param_attr="w")
    clone = other.global_block()._clone_variable(main.global_block().var("w"))
    assert (clone.name, clone.shape, clone.persistable, clone.block.program is other) == ("w", (4, 2), True, True)
