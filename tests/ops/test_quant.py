import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_op import run_op

from millstream.errors import InvalidProgramError, ShapeError

X = np.random.RandomState(0).randn(4, 3).astype("float32")
ONE = np.ones(1, "float32")


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(0, 99))
def test_quantize_then_dequantize_is_near(bits, seed):
    x = np.random.RandomState(seed).randn(5, 4).astype("float32")
    top = 2 ** (bits - 1) - 1
    ran = run_op("fake_quantize_abs_max", {"X": x}, {"bit_length": bits}, ("Out", "OutScale"))
    assert (ran["Out"] == np.round(ran["Out"])).all() and np.abs(ran["Out"]).max() == top
    back = run_op("fake_dequantize_max_abs", {"X": ran["Out"], "Scale": ran["OutScale"]}, {"max_range": float(top)})["Out"]
    assert np.abs(back - x).max() <= ran["OutScale"][0] / top * 0.501


def test_zeros_stay_zeros():
    zero = np.zeros((2, 2), "float32")
    for op in ("fake_quantize_abs_max", "fake_channel_wise_quantize_abs_max"):
        assert not run_op(op, {"X": zero}, outs=("Out", "OutScale"))["Out"].any()


def test_channels():
    ran = run_op("fake_channel_wise_quantize_abs_max", {"X": X}, {"bit_length": 8}, ("Out", "OutScale"))
    np.testing.assert_allclose(ran["OutScale"], np.abs(X).max(1))
    ins = {"X": ran["Out"], "Scales": [ran["OutScale"]]}
    back = run_op("fake_channel_wise_dequantize_max_abs", ins, {"quant_bits": [8]})["Out"]
    assert np.abs(back - X).max() < 0.02
    with pytest.raises(ShapeError, match="first of Scales"):
        run_op("fake_channel_wise_dequantize_max_abs", {"X": X, "Scales": [ONE]}, {"quant_bits": [8]})


def test_moving_average():
    ins = {"X": X, "InScale": ONE, "InAccum": ONE * 2, "InState": ONE * 3}
    outs = ("Out", "OutScale", "OutState", "OutAccum")
    top = np.abs(X).max()
    for op in ("fake_quantize_moving_average_abs_max", "fake_quantize_dequantize_moving_average_abs_max"):
        ran = run_op(op, ins, {"moving_rate": 0.5}, outs)
        np.testing.assert_allclose(ran["OutState"], 2.5)
        np.testing.assert_allclose(ran["OutAccum"], 1 + top, rtol=1e-6)
        np.testing.assert_allclose(ran["OutScale"], (1 + top) / 2.5, rtol=1e-6)
        test = run_op(op, {"X": X, "InScale": ONE}, {"is_test": True}, ("Out",))["Out"]
        assert np.abs(test).max() == (1 if "dequantize" in op else 127)
        with pytest.raises(InvalidProgramError, match="InAccum and InState"):
            run_op(op, {"X": X, "InScale": ONE}, {}, ("Out",))


def test_scale_only():
    ins = {"X": X, "InAccum": ONE, "InState": ONE}
    ran = run_op("moving_average_abs_max_scale", ins, {}, ("Out", "OutScale", "OutState", "OutAccum"))
    np.testing.assert_array_equal(ran["Out"], X)
    np.testing.assert_allclose(ran["OutScale"], (0.9 + np.abs(X).max()) / 1.9, rtol=1e-6)


def test_range_over_a_window():
    ins = {"X": X, "InScale": ONE * 9, "Iter": np.array([5])}
    ran = run_op("fake_quantize_range_abs_max", ins, {"window_size": 4}, ("Out", "OutScale", "OutScales"))
    assert ran["OutScale"].tolist() == [9] and ran["OutScales"].shape == (4,)
    np.testing.assert_allclose(ran["OutScales"][1], np.abs(X).max())
    with pytest.raises(InvalidProgramError, match="Iter is needed"):
        run_op("fake_quantize_range_abs_max", {"X": X, "InScale": ONE}, {}, ("Out",))
    with pytest.raises(InvalidProgramError, match="bit_length"):
        run_op("fake_quantize_abs_max", {"X": X}, {"bit_length": 17}, ("Out",))


def test_tables():
    codes = np.array([-128, -1, 0, 127], "int8")
    table = np.arange(128, dtype="float32")
    assert run_op("dequantize_log", {"X": codes, "Dict": table})["Out"].tolist() == [0, -127, 0, 127]
    assert run_op("dequantize_abs_max", {"X": codes, "Scale": ONE}, {"max_range": 127.0})["Out"][3] == 1
    packed = np.array([0, 64, 128, 255], "uint8").view("float32")
    w = np.stack([np.array([-1.0, 1.0, packed[0]], "float32")] * 2)
    got = run_op("lookup_table_dequant", {"W": w, "Ids": np.array([[0], [1]])}, {"padding_idx": 1})["Out"]
    np.testing.assert_allclose(got, [[-1, -0.5, 0, 0.9921875], [0, 0, 0, 0]])


# ---- integers ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "number", "low", "high"), [("int8", 21, -128, 127), ("uint8", 20, 0, 255)])
def test_quantize_linear(kind, number, low, high):
    """Halves go to the even number; what lies outside is cut."""
    x = np.array([[-1000.0, 0.25, 0.75], [1.25, -0.25, 1000.0]], "float32")
    ins = {"X": x, "Scale": np.array([0.5], "float32"), "ZeroPoint": np.array([3], kind)}
    whole = run_op("quantize_linear", ins, {"dtype": number, "axis": 0}, ("Y",))["Y"]
    wanted = np.clip([[-1997, 3, 5], [5, 3, 2003]], low, high)
    assert whole.dtype == kind and (whole == wanted).all()
    back = run_op("dequantize_linear", {**ins, "X": whole}, {"axis": 0}, ("Y",))["Y"]
    np.testing.assert_array_equal(back, ((wanted - 3) * 0.5).astype("float32"))
    pair = run_op("quantize_dequantize_linear", ins, {"dtype": number}, ("Y",))["Y"]
    np.testing.assert_array_equal(pair, back)


def test_scales_along_an_axis():
    scale = np.array([0.1, 0.2, 0.4], "float32")
    whole = run_op("quantize_linear", {"X": X, "Scale": scale}, {"dtype": 21, "axis": -1}, ("Y",))["Y"]
    assert (whole == np.round(X / scale)).all()
    back = run_op("dequantize_linear", {"X": whole, "Scale": scale}, {"axis": 1}, ("Y",))["Y"]
    np.testing.assert_allclose(back, whole * scale)
    for axis, ins in ((0, {"Scale": scale}), (1, {"Scale": ONE, "ZeroPoint": np.zeros(2, "int8")})):
        with pytest.raises(ShapeError, match=r"must be \[[34]\] \(dim"):
            run_op("quantize_linear", {"X": X, **ins}, {"dtype": 21, "axis": axis}, ("Y",))
    with pytest.raises(InvalidProgramError, match="dtype must be int8, uint8 or int16"):
        run_op("quantize_linear", {"X": X, "Scale": ONE}, {"dtype": 5}, ("Y",))
