"""Modules that user code of 1.1 to 1.8 imports from by name."""

import importlib

import pytest

import millstream.fluid as fluid

NAMES = {
    "executor": ["Executor", "global_scope", "scope_guard"],
    "compiler": ["BuildStrategy", "CompiledProgram", "ExecutionStrategy"],
    "parallel_executor": ["ParallelExecutor"],
    "layers.control_flow": ["Print", "equal", "less_than", "logical_and"],
    "layers.io": ["create_py_reader_by_data", "double_buffer", "py_reader", "read_file"],
    "layers.loss": ["edit_distance", "warpctc"],
    "layers.nn": ["crf_decoding", "hash", "im2sequence", "label_smooth", "roi_align", "concat", "cast"],
    "layers.tensor": ["kron", "trace", "tril"],
    "layers.rnn": ["BeamSearchDecoder", "GRUCell", "LSTMCell", "RNNCell", "dynamic_decode", "dynamic_lstm", "rnn"],
    "layers.sequence_lod": ["sequence_conv", "sequence_pool"],
}


@pytest.mark.parametrize("module", sorted(NAMES))
def test_modules(module):
    loaded = importlib.import_module(f"millstream.fluid.{module}")
    home = fluid.layers if module.startswith("layers.") else fluid
    for name in NAMES[module]:
        assert getattr(loaded, name) is getattr(home, name)


def test_the_function_rnn_is_not_hidden_by_its_module():
    importlib.import_module("millstream.fluid.layers.rnn")
    assert callable(fluid.layers.rnn)


@pytest.mark.parametrize("name", ["load_program_state", "set_program_state", "load_dygraph", "save_dygraph"])
def test_functions_of_fluid(name):
    assert callable(getattr(fluid, name))


@pytest.mark.parametrize("module", ["dygraph", "contrib", "contrib.layers"])
def test_a_star_import_leaves_the_programs_own_modules_alone(module):
    names = importlib.import_module(f"millstream.fluid.{module}").__all__
    assert names and not {"layers", "nn", "reader", "base", "utils", "decoder", "parallel"} & set(names)


def test_nn_holds_what_it_held_in_1_1():
    import millstream.fluid.layers as layers
    from millstream.fluid.layers import nn

    for name in ("cross_entropy", "sequence_pool", "dynamic_gru", "nce", "warpctc", "beam_search", "square_error_cost"):
        assert getattr(nn, name) is getattr(layers, name)
