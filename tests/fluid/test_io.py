"""fluid.io: what is written, what comes back, what is refused, and that a failed load leaves the scope as it was."""

import logging
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import millstream.fluid as fluid
from millstream.errors import (
    EnforceNotMet,
    FileFormatError,
    MissingFileError,
    ShapeError,
    StateMismatchError,
    UninitializedError,
)
from millstream.ir.types import VarType


class Net:
    """x [-1, n] -> fc 3 (relu) -> fc 2, a persistable counter beside it, initialised in a scope of its own."""

    def __init__(self, n=4, run=True):
        self.main, self.startup, self.scope = fluid.Program(), fluid.Program(), fluid.Scope()
        with fluid.unique_name.guard(), fluid.program_guard(self.main, self.startup):
            self.x = fluid.data("x", [None, n])
            self.y = fluid.layers.fc(self.x, 3, act="relu")
            self.z = fluid.layers.fc(fluid.layers.dropout(self.y, 0.5), 2)
            self.counter = fluid.layers.create_global_var([1], 7.0, "float32", persistable=True, name="a/counter")
        self.exe = fluid.Executor(fluid.CPUPlace())
        if run:
            with fluid.scope_guard(self.scope):
                self.exe.run(self.startup)

    def values(self):
        names = [v.name for v in self.main.list_vars() if fluid.io.is_persistable(v)]
        held = {n: self.scope.find_var(n) for n in names}
        return {n: np.array(v.get_tensor()) for n, v in held.items() if v is not None and v.get_tensor()._is_initialized()}


PARAMETERS = ["fc_0.b_0", "fc_0.w_0", "fc_1.b_0", "fc_1.w_0"]


@pytest.fixture
def net():
    made = Net()
    with fluid.scope_guard(made.scope):
        yield made


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("filename", [None, "all"])
@pytest.mark.parametrize("form", ["params", "persistables"])
def test_parameters_come_back(net, tmp_path, form, filename):
    save, load = getattr(fluid.io, "save_" + form), getattr(fluid.io, "load_" + form)
    save(net.exe, str(tmp_path / "m"), net.main, filename)
    if filename is None:
        assert sorted(n for n in os.listdir(tmp_path / "m") if n != "a") == PARAMETERS
        assert os.path.exists(tmp_path / "m" / "a" / "counter") == (form == "persistables")
    other = Net(run=False)
    with fluid.scope_guard(other.scope):
        load(other.exe, str(tmp_path / "m"), other.main, filename)
    want = net.values()
    if form == "params":
        del want["a/counter"]
    assert same(other.values(), want)


def test_in_memory(net):
    data = fluid.io.save_persistables(net.exe, None, net.main)
    other = Net(run=False)
    with fluid.scope_guard(other.scope):
        fluid.io.load_persistables(other.exe, None, other.main, filename=data)
        assert same(other.values(), net.values())
        with pytest.raises(FileFormatError, match="bytes follow"):
            fluid.io.load_persistables(other.exe, None, other.main, filename=data + b"more")
        with pytest.raises(ValueError, match="contents of a combined file"):
            fluid.io.load_persistables(other.exe, None, other.main)


def test_save_vars_by_predicate_and_list(net, tmp_path):
    fluid.io.save_vars(net.exe, str(tmp_path / "p"), net.main, predicate=lambda v: v.name.endswith("b_0"))
    assert sorted(os.listdir(tmp_path / "p")) == ["fc_0.b_0", "fc_1.b_0"]
    fluid.io.save_vars(net.exe, str(tmp_path / "l"), net.main, vars=["fc_0.w_0", net.main.global_block().var("fc_1.w_0")])
    assert sorted(os.listdir(tmp_path / "l")) == ["fc_0.w_0", "fc_1.w_0"]
    fluid.io.save_vars(net.exe, str(tmp_path / "none"), net.main, vars=[])
    assert not os.path.exists(tmp_path / "none")


def test_uninitialized_saves_nothing(tmp_path):
    made = Net(run=False)
    with fluid.scope_guard(made.scope), pytest.raises(UninitializedError, match=r"fc_0\.[wb]_0"):
        fluid.io.save_params(made.exe, str(tmp_path / "m"), made.main)
    assert not os.path.exists(tmp_path / "m")


@pytest.mark.parametrize("filename", [None, "all"])
def test_another_shape_is_refused_and_nothing_loaded(net, tmp_path, filename):
    fluid.io.save_params(net.exe, str(tmp_path / "m"), net.main, filename)
    other = Net(5)
    before = other.values()
    with fluid.scope_guard(other.scope), pytest.raises(RuntimeError, match=r"shape does not match.*fc_0\.w_0") as caught:
        fluid.io.load_params(other.exe, str(tmp_path / "m"), other.main, filename)
    assert isinstance(caught.value, ShapeError)
    assert same(other.values(), before)


@pytest.mark.parametrize("damage", ["missing", "truncated", "longer", "garbage", "folder"])
def test_damaged_files_leave_the_scope(net, tmp_path, damage):
    fluid.io.save_params(net.exe, str(tmp_path / "m"), net.main)
    path = tmp_path / "m" / "fc_1.w_0"  # the last one in the order of names
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"truncated": data[:-3], "longer": data + b"x", "garbage": b"\xff" * 40}[damage])
    other = Net()
    before = other.values()
    kind = MissingFileError if damage in ("missing", "folder") else FileFormatError
    with fluid.scope_guard(other.scope), pytest.raises(kind, match=r"fc_1\.w_0"):
        fluid.io.load_params(other.exe, str(tmp_path / "m"), other.main)
    assert same(other.values(), before)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_of_a_combined_file_is_an_error_or_the_same_shapes(data):
    made = Net()
    with fluid.scope_guard(made.scope):
        good = fluid.io.save_persistables(made.exe, None, made.main)
        before = made.values()
        raw = bytearray(good)
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        raw = raw[: data.draw(st.integers(0, len(raw)))]
        try:
            fluid.io.load_persistables(made.exe, None, made.main, filename=bytes(raw))
        except EnforceNotMet:
            assert same(made.values(), before)


def test_wrong_arguments(net, tmp_path):
    with pytest.raises(TypeError, match="main_program is invalid"):
        fluid.io.save_params(net.exe, str(tmp_path), 3)
    with pytest.raises(TypeError, match="executor must be"):
        fluid.io.save_params(None, str(tmp_path), net.main)
    with pytest.raises(TypeError, match="dirname must be a path"):
        fluid.io.save_params(net.exe, None, net.main, filename="all")
    with pytest.raises(MissingFileError, match="does not exist"):
        fluid.io.load_params(net.exe, str(tmp_path / "nowhere"), net.main)
    with pytest.raises(FileNotFoundError):
        fluid.io.load_params(net.exe, str(tmp_path), net.main, filename="nothing")


def test_name_that_leads_outside_is_refused(net, tmp_path):
    block = net.main.global_block()
    block.create_var(name="../outside", shape=[1], dtype="float32", persistable=True)
    with pytest.raises(FileFormatError, match="leads outside"):
        fluid.io.load_persistables(net.exe, str(tmp_path), net.main)


def test_lod_and_selected_rows_come_back(tmp_path):
    main, scope = fluid.Program(), fluid.Scope()
    block = main.global_block()
    block.create_var(name="ragged", shape=[-1, 2], dtype="float32", lod_level=1, persistable=True)
    block.create_var(name="rows", shape=[9, 2], dtype="float32", type=VarType.SELECTED_ROWS, persistable=True)
    exe = fluid.Executor()
    with fluid.scope_guard(scope):
        t = scope.var("ragged").get_tensor()
        t.set(np.arange(12, dtype="float32").reshape(6, 2), fluid.CPUPlace())
        t.set_lod([[0, 2, 2, 6]])
        rows = scope.var("rows").get_selected_rows()
        rows.set_rows([3, 5, 3])
        rows.set_height(9)
        rows.get_tensor().set(np.ones((3, 2), "float32"), fluid.CPUPlace())
        for filename in (None, "all"):
            fluid.io.save_persistables(exe, str(tmp_path), main, filename)
            with fluid.scope_guard(fluid.Scope()) as _:
                fluid.io.load_persistables(exe, str(tmp_path), main, filename)
                back = fluid.global_scope()
                assert back.find_var("ragged").get_tensor().lod() == [[0, 2, 2, 6]]
                assert back.find_var("rows").get_selected_rows().rows() == [3, 5, 3]
                assert back.find_var("rows").get_selected_rows().height() == 9


def test_operators_save_and_load(tmp_path):
    program = fluid.Program()
    block = program.global_block()
    v = block.create_var(name="v", shape=[2, 2], dtype="float32", persistable=True)
    w = block.create_var(name="w", persistable=True)
    h = block.create_var(name="h", persistable=True)
    part = block.create_var(name="part", persistable=True)
    path, both = str(tmp_path / "d" / "v"), str(tmp_path / "both")
    block.append_op(type="fill_constant", outputs={"Out": [v]}, attrs={"shape": [2, 2], "value": 3.0, "dtype": 5})
    block.append_op(type="save", inputs={"X": [v]}, attrs={"file_path": path})
    block.append_op(type="load", outputs={"Out": [w]}, attrs={"file_path": path})
    block.append_op(type="load", outputs={"Out": [h]}, attrs={"file_path": path, "load_as_fp16": True})
    block.append_op(type="load", outputs={"Out": [part]}, attrs={"file_path": path, "seek": 1, "shape": [1, 2]})
    block.append_op(type="save_combine", inputs={"X": [v, h]}, attrs={"file_path": both, "save_as_fp16": True})
    a, b = (block.create_var(name=n, persistable=True) for n in "ab")
    block.append_op(type="load_combine", outputs={"Out": [a, b]}, attrs={"file_path": both})
    exe = fluid.Executor()
    with fluid.scope_guard(fluid.Scope()):
        exe.run(program)
        got = {n: np.array(fluid.global_scope().find_var(n).get_tensor()) for n in ("w", "h", "part", "a", "b")}
        assert np.array_equal(got["w"], np.full((2, 2), 3, "float32")) and got["w"].dtype == np.float32
        assert got["h"].dtype == got["a"].dtype == got["b"].dtype == np.float16
        assert got["part"].shape == (1, 2)
        block.append_op(type="save", inputs={"X": [v]}, attrs={"file_path": path, "overwrite": False})
        with pytest.raises(EnforceNotMet, match="overwrite is false"):
            exe.run(program)


# ---- inference models -------------------------------------------------------------------------------
def test_inference_model(net, tmp_path):
    feed = {"x": np.arange(8, dtype="float32").reshape(2, 4)}
    test = net.main.clone(for_test=True)
    want = net.exe.run(test, feed=feed, fetch_list=[net.z.name])[0]
    before = len(net.main.global_block().ops)
    names = fluid.io.save_inference_model(str(tmp_path), ["x"], [net.z], net.exe, net.main)
    assert names == ["save_infer_model/scale_0.tmp_0"]
    assert len(net.main.global_block().ops) == before + 1  # as 1.8.5 does
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(str(tmp_path), net.exe)
        assert feeds == ["x"] and [v.name for v in fetches] == names
        types = [op.type for op in program.global_block().ops]
        assert types[0] == "feed" and types[-2:] == ["scale", "fetch"]
        assert program.global_block().ops[types.index("dropout")].attr("is_test") is True
        assert np.array_equal(net.exe.run(program, feed=feed, fetch_list=fetches)[0], want)


def test_inference_model_counts_its_scales_and_prunes(net, tmp_path):
    first = fluid.io.save_inference_model(str(tmp_path / "a"), "x", net.z, net.exe, net.main)
    second = fluid.io.save_inference_model(str(tmp_path / "b"), ["x"], [net.y, net.z], net.exe, net.main)
    assert first == ["save_infer_model/scale_0.tmp_0"]
    assert second == ["save_infer_model/scale_0.tmp_1", "save_infer_model/scale_1.tmp_0"]
    fluid.io.save_inference_model(str(tmp_path / "c"), ["x"], [net.y], net.exe, net.main)
    assert sorted(os.listdir(tmp_path / "c")) == ["__model__", "fc_0.b_0", "fc_0.w_0"]


def test_inference_model_files(net, tmp_path):
    root = str(tmp_path)
    fluid.io.save_inference_model(root + "/1", ["x"], [net.z], net.exe, net.main, "dir/model", "dir/params")
    assert sorted(os.listdir(root + "/1")) == ["model", "params"]
    with pytest.warns(UserWarning, match="program_only"):
        fluid.io.save_inference_model(root + "/2", ["x"], [net.z], net.exe, net.main, program_only=True)
    assert os.listdir(root + "/2") == ["__model__"]
    fluid.io.save_inference_model(root + "/3", ["x"], [net.z], net.exe, net.main, export_for_deployment=False)
    assert "__model__.main_program" in os.listdir(root + "/3") and "a" in os.listdir(root + "/3")
    loaded = fluid.io.load_inference_model(root + "/3", net.exe, model_filename="__model__.main_program")
    assert loaded[1:] == [[], []]
    with open(root + "/1/model", "rb") as model, open(root + "/1/params", "rb") as params:
        _program, feeds, _ = fluid.io.load_inference_model(None, net.exe, model.read(), params.read())
    assert feeds == ["x"]


def test_feed_order_is_kept(tmp_path):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        a, b = fluid.data("a", [None, 2]), fluid.data("b", [None, 2])
        out = a - b
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(str(tmp_path), ["b", "a"], [out], exe, main)
        program, feeds, _ = fluid.io.load_inference_model(str(tmp_path), exe)
    assert feeds == ["b", "a"]
    stored = [op.output("Out")[0] for op in program.global_block().ops if op.type == "feed"]
    assert stored == ["a", "b"]  # put in front one by one


def test_inference_model_refusals(net, tmp_path):
    root = str(tmp_path / "m")
    before = len(net.main.global_block().ops)
    with pytest.raises(ValueError, match="feeded_var_names: 'nope' is no variable"):
        fluid.io.save_inference_model(root, ["nope"], [net.z], net.exe, net.main)
    with pytest.raises(ValueError, match="feed_var_names"):
        fluid.io.save_inference_model(root, [net.x], [net.z], net.exe, net.main)
    with pytest.raises(ValueError, match="target_vars"):
        fluid.io.save_inference_model(root, ["x"], ["z"], net.exe, net.main)
    for feeds in (["x", "a/counter"], [net.y.name, "x"]):  # what no operator between feeds and targets reads
        with pytest.raises(ValueError, match=f"do not need '{feeds[1]}'"):
            fluid.io.save_inference_model(root, feeds, [net.z], net.exe, net.main)
    assert len(net.main.global_block().ops) == before and not os.path.exists(root)
    with pytest.raises(ValueError, match="no directory"):
        fluid.io.load_inference_model(root, net.exe)
    fluid.io.save_inference_model(root, ["x"], [net.z], net.exe, net.main)
    with pytest.raises(FileNotFoundError, match="other"):
        fluid.io.load_inference_model(root, net.exe, model_filename="other")
    with pytest.raises(MissingFileError, match="params"):
        fluid.io.load_inference_model(root, net.exe, params_filename="params")
    with open(os.path.join(root, "__model__"), "wb") as fh:
        fh.write(b"garbage!!!")
    with pytest.raises(FileFormatError, match="not a Fluid program"):
        fluid.io.load_inference_model(root, net.exe)
    with pytest.raises(ValueError, match="params cannot be None"):
        fluid.io.load_inference_model(None, net.exe)


def test_get_inference_program(net):
    program = fluid.io.get_inference_program([net.y], net.main)
    assert "dropout" not in [op.type for op in program.global_block().ops]


# ---- fluid.save, fluid.load --------------------------------------------------------------------------
def test_save_and_load(net, tmp_path):
    path = str(tmp_path / "m")
    fluid.save(net.main, path)
    assert sorted(os.listdir(tmp_path)) == ["m.pdmodel", "m.pdopt", "m.pdparams"]
    for given_path in (path, path + ".pdparams"):
        other = Net(run=False)
        with fluid.scope_guard(other.scope):
            fluid.load(other.main, given_path, other.exe)
            assert same(other.values(), net.values())
    state = fluid.io.load_program_state(path)
    assert sorted(state) == ["a/counter", *PARAMETERS]
    with open(path + ".pdmodel", "rb") as fh:
        assert len(fluid.Program.parse_from_string(fh.read()).global_block().ops) == len(net.main.global_block().ops)


def test_save_and_load_refusals(net, tmp_path):
    path = str(tmp_path / "m")
    with pytest.raises(AssertionError, match="directory/name"):
        fluid.save(net.main, str(tmp_path) + "/")
    with pytest.raises(FileNotFoundError, match="pdparams"):
        fluid.load(net.main, path, net.exe)
    assert fluid.load_program_state(path) == {}
    fluid.save(net.main, path)
    other = Net(5)
    before = other.values()
    with fluid.scope_guard(other.scope), pytest.raises(StateMismatchError, match=r"fc_0\.w_0"):
        fluid.load(other.main, path, other.exe)
    assert same(other.values(), before)
    os.remove(path + ".pdopt")
    with pytest.raises(AssertionError, match="Optimizer file"):
        fluid.load(net.main, path, net.exe)
    with open(path + ".pdparams", "wb") as fh:
        fh.write(b"\x80\x02garbage")
    with pytest.raises(FileFormatError):
        fluid.load(net.main, path, net.exe)


def test_older_forms(net, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("paddle.fluid.io"), "propagate", True)  # for caplog
    folder, combined = str(tmp_path / "d"), str(tmp_path / "c" / "all")
    fluid.io.save_persistables(net.exe, folder, net.main)
    fluid.io.save_params(net.exe, str(tmp_path / "c"), net.main, filename="all")
    parameters = fluid.io.get_program_parameter(net.main)
    other = Net(run=False)
    with fluid.scope_guard(other.scope):
        fluid.load(other.main, folder, other.exe)
        assert same(other.values(), net.values())
        with pytest.raises(ValueError, match="executor is required"):
            fluid.load(other.main, folder)
        with pytest.raises(ValueError, match="var_list is required"):
            fluid.load(other.main, combined, other.exe)
        fluid.load(other.main, combined, other.exe, parameters)
    assert "try to load model file" in caplog.text
    assert sorted(fluid.io.load_program_state(folder)) == ["a/counter", *PARAMETERS]
    assert sorted(fluid.io.load_program_state(folder, [net.main.global_block().var("fc_0.w_0")])) == ["fc_0.w_0"]
    assert sorted(fluid.io.load_program_state(combined, parameters)) == PARAMETERS
    with pytest.raises(ValueError, match="var_list can not be None"):
        fluid.io.load_program_state(combined)


def test_set_program_state_needs_the_startup_program(net):
    with fluid.scope_guard(fluid.Scope()), pytest.raises(AssertionError, match="Please make sure run startup program"):
        fluid.io.set_program_state(net.main, {"another": np.ones(2, "float32")})


def test_set_program_state(net):
    w = np.full((4, 3), 2, "float32")
    with pytest.warns(UserWarning, match="extra"):
        fluid.io.set_program_state(net.main, {"fc_0.w_0": w, "extra": w})
    assert np.array_equal(net.values()["fc_0.w_0"], w)
    w[:] = 9  # a copy was taken
    assert net.values()["fc_0.w_0"].max() == 2
    for wrong, text in ((np.zeros((3, 3), "float32"), "shape"), (np.zeros((4, 3)), "data type")):
        with pytest.raises(AssertionError, match=text):
            fluid.io.set_program_state(net.main, {"fc_0.w_0": wrong})
    with fluid.scope_guard(fluid.Scope()), pytest.raises(AssertionError, match="startup program"):
        fluid.io.set_program_state(net.main, {"fc_0.w_0": w})


def test_running_plans_see_loaded_values(net, tmp_path):
    feed = {"x": np.ones((1, 4), "float32")}
    first = net.exe.run(net.main.clone(for_test=True), feed=feed, fetch_list=[net.z.name])[0]
    test = net.main.clone(for_test=True)
    net.exe.run(test, feed=feed, fetch_list=[net.z.name])
    state = {n: np.full_like(v, 2) for n, v in net.values().items()}
    fluid.io.set_program_state(net.main, state)
    # relu(4 * 2 + 2) = 10 in each of 3 units, halved by the dropout of inference: 3 * 5 * 2 + 2
    assert (net.exe.run(test, feed=feed, fetch_list=[net.z.name])[0] == 32).all() and (first != 32).all()


def test_predicates_and_values(net):
    block = net.main.global_block()
    assert fluid.io.is_parameter(block.var("fc_0.w_0")) and not fluid.io.is_parameter(net.x)
    assert fluid.io.is_belong_to_optimizer(net.counter) and not fluid.io.is_belong_to_optimizer(block.var("fc_0.w_0"))
    assert fluid.io.get_parameter_value_by_name("fc_0.b_0", net.exe, net.main).shape == (3,)
    with pytest.raises(AssertionError, match="expected a Parameter"):
        fluid.io.get_parameter_value(net.counter, net.exe)
    assert "a/counter" in [v.name for v in fluid.io.get_program_persistable_vars(net.main)]
