"""ops/host and ops/misc: print, py_func, hashes."""

import numpy as np
import pytest
from many_outputs import as_lod_tensor, build_op, numeric_grad_check, run_op

import millstream.fluid as fluid
from millstream.errors import FeedError, InvalidProgramError, OperatorError
from millstream.ops.host import register_callable

PRINT = {"first_n": 2, "message": "hello", "summarize": 4, "print_phase": "BOTH", "is_forward": True}


def test_print_forward_and_backward(capsys):
    x = np.arange(6, dtype="float32").reshape(2, 3) / 7
    program, feed, outs = build_op("print", {"In": x}, PRINT, {"Out": 1}, lods={"In_0": [[1, 1]]})
    (grad,) = fluid.gradients(outs["Out"], [program.global_block().var("In_0")])
    executor = fluid.Executor(fluid.CPUPlace())
    for _ in range(3):
        out, dx = executor.run(program, feed=feed, fetch_list=[outs["Out"][0], grad], return_numpy=False)
    assert out.recursive_sequence_lengths() == [[1, 1]]
    np.testing.assert_array_equal(np.asarray(dx), np.ones((2, 3)))
    text = capsys.readouterr().out
    assert text.count("\thello\tThe place is:CPUPlace\n") == 4  # twice forward, twice backward
    assert "Tensor[In_0]\n\tshape: [2,3,]\n\tdtype: f\n\tLoD: [[ 0,1,2, ]]\n\tdata: 0,0.142857,0.285714,0.428571,\n" in text
    assert "Tensor[out_Out_0@GRAD]" in text


def test_print_runs_when_nobody_fetches_it(capsys):
    program, feed, _ = build_op("print", {"In": np.ones((1,), "int64")}, {**PRINT, "print_phase": "FORWARD"}, {"Out": 1})
    fluid.Executor(fluid.CPUPlace()).run(program, feed=feed, fetch_list=[])
    assert "dtype: l" in capsys.readouterr().out


def double(x):
    return np.asarray(x) * 2


def test_py_func_with_backward():
    seen = []

    def square(x):
        seen.append(x.recursive_sequence_lengths())
        return as_lod_tensor(np.asarray(x) ** 2, x.recursive_sequence_lengths())

    def square_grad(x, dout):
        return 2 * np.asarray(x) * np.asarray(dout)

    attrs = {
        "forward_callable_id": register_callable(square),
        "backward_callable_id": register_callable(square_grad),
        "backward_skip_vars": ["out_Out_0"],
    }
    x = np.arange(1.0, 4.0).reshape(3, 1)
    numeric_grad_check("py_func", {"X": x}, attrs, {"Out": 1}, ["X_0"], lods={"X_0": [[1, 2]]})
    assert seen[0] == [[1, 2]]


def test_py_func_results():
    two = register_callable(lambda x: (np.asarray(x) + 1, None))
    got = run_op("py_func", {"X": np.zeros((2,), "float32")}, {"forward_callable_id": register_callable(double)}, {"Out": 1})
    np.testing.assert_array_equal(np.asarray(got["Out"]), np.zeros(2))
    with pytest.raises(InvalidProgramError, match="returned 2"):
        run_op("py_func", {"X": np.zeros((2,), "float32")}, {"forward_callable_id": two}, {"Out": 1})
    with pytest.raises(InvalidProgramError, match="registered as 999999"):
        run_op("py_func", {"X": np.zeros((2,), "float32")}, {"forward_callable_id": 999999}, {"Out": 1})
    assert register_callable(double) == register_callable(double)


def test_an_error_of_the_users_function_is_not_laid_at_the_feed():
    x = fluid.layers.data("x", [3])  # fed with one dimension more than declared, which layers.data allows
    out = fluid.default_main_program().current_block().create_var(name="out", dtype="float32", shape=[-1, 3])

    def broken(values):
        raise ValueError("the user's own")

    fluid.layers.py_func(broken, x, out)
    with pytest.raises(ValueError, match="the user's own") as caught:
        fluid.Executor().run(feed={"x": np.ones((2, 3, 1), "float32")}, fetch_list=[out])
    assert isinstance(caught.value, OperatorError) and not isinstance(caught.value, FeedError)


def test_get_places():
    program = fluid.Program()
    out = program.global_block().create_var(name="places")
    program.global_block().append_op("get_places", outputs={"Out": out}, attrs={"device_count": 3, "device_type": "CPU"})
    (places,) = fluid.Executor(fluid.CPUPlace()).run(program, fetch_list=[out], return_numpy=False)
    assert places == [fluid.CPUPlace()] * 3


@pytest.mark.parametrize(
    "data, seed, want",
    [
        (b"", 0, 0xEF46DB3751D8E999),
        (b"a", 0, 0xD24EC4F1A98C6E5B),
        (b"Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
    ],
)
def test_xxh64_of_known_texts(data, seed, want):
    from millstream.kernels.xxhash import xxh64

    assert int(xxh64(np.frombuffer(data, np.uint8), np.uint64(seed))) == want


@pytest.mark.parametrize(
    "data, seed, want",
    [(b"", 0, 0x02CC5D05), (b"a", 0, 0x550D7456), (b"Nobody inspects the spammish repetition", 0, 0xE2293B2F)],
)
def test_xxh32_of_known_texts(data, seed, want):
    from millstream.kernels.xxhash import xxh32

    assert int(xxh32(np.frombuffer(data, np.uint8), np.uint64(seed))) == want


def test_hash_of_wide_rows():
    """36 bytes a row reach the 32-byte loop; recorded from 1.8.5."""
    x = np.arange(18, dtype="int32").reshape(2, 9)
    got = run_op("hash", {"X": x}, {"num_hash": 3, "mod_by": 100000}, {"Out": 1})["Out"]
    assert np.asarray(got).reshape(2, 3).tolist() == [[46431, 87389, 92520], [38704, 55332, 80897]]


def test_split_and_merge_ids():
    ids = np.array([[5], [2], [4], [2]])
    parts = [np.asarray(t) for t in run_op("split_ids", {"Ids": ids}, {}, {"Out": 2})["Out"]]
    assert [p.ravel().tolist() for p in parts] == [[2, 4], [5]]
    values = [p.repeat(2, 1).astype("float32") for p in parts]
    got = run_op("merge_ids", {"Ids": [ids], "Rows": parts, "X": values}, {}, {"Out": 1})["Out"]
    np.testing.assert_array_equal(np.asarray(got), ids.repeat(2, 1))


def test_filter_by_instag_gradient():
    ins = {"Ins": np.arange(6.0).reshape(3, 2), "Ins_tag": np.array([[1], [2], [1]]), "Filter_tag": np.array([1])}
    numeric_grad_check(
        "filter_by_instag",
        ins,
        {"is_lod": False},
        {"Out": 1, "LossWeight": 1, "IndexMap": 1},
        ["Ins_0"],
        lods={"Ins_tag_0": [[1, 1, 1]]},
    )
