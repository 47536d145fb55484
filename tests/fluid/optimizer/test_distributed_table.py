import pytest

from millstream import fluid

L = fluid.layers


def _ops(make, embedding=L.embedding, names=("table",)):
    with fluid.program_guard(fluid.Program(), fluid.Program()), fluid.unique_name.guard():
        ids = L.data("ids", [1], dtype="int64")
        rows = [embedding(ids, [20, 3], is_sparse=True, is_distributed=True, param_attr=name) for name in names]
        loss = L.mean(L.square(L.fc(L.sums(rows), 2)))
        updates, _ = make().minimize(loss)
        return [op.type for op in updates], fluid.default_main_program()


def test_a_distributed_table_is_updated_by_plain_sgd():
    clip = fluid.clip.GradientClipByGlobalNorm(0.1)
    types, program = _ops(lambda: fluid.optimizer.Adam(0.1, grad_clip=clip))
    assert types == ["adam", "adam", "sgd"]
    sgd = next(op for op in program.global_block().ops if op.type == "sgd")
    assert sgd.input("Param") == ["table"] and sgd.input("Grad") == ["table@GRAD"]


def test_the_table_of_fluid_embedding_is_updated_like_all():
    types, _ = _ops(lambda: fluid.optimizer.Adam(0.1), fluid.embedding)
    assert types == ["adam", "adam", "adam"]


def test_two_distributed_tables_are_refused():
    with pytest.raises(RuntimeError, match="one table"):
        _ops(lambda: fluid.optimizer.Adam(0.1), names=("a", "b"))
