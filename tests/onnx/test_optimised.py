"""Programs that passes optimised: the operators that only passes make are exported too."""

import copy

import pytest
from families import all_families
from round_trip import compare, inference_of

from millstream.ir import walk
from millstream.passes import optimize

# each with operators that passes put into it
MADE = {
    "text/bert": {"fused_attention", "fused_embedding_layer_norm", "fused_add_layer_norm", "fc"},
    "text/bigru_crf": {"embedded_bigru", "projected_bigru"},
    "text/sentiment-lstm": {"fused_embedding_fc_lstm"},
    "classify/mobilenet-v1": {"conv2d", "packed_conv2d"},
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_optimised_programs(name):
    module, variant = next((m, v) for n, m, v in all_families() if n == name)
    _, one = inference_of(module, variant)[-1]
    want = one.run()

    def parameter(n):
        var = one.scope.find_var(n)
        return None if var is None else var.load()[0]

    work = optimize(one.program, one.feeds, one.fetches, parameter)
    types = {op.type for op in walk.all_ops(work.program)}
    assert types & MADE[name], types
    optimised = copy.copy(one)
    optimised.program = work.program
    values = {v.name: parameter(v.name) for v in work.program.list_vars() if v.persistable and v.name not in work.values}
    optimised.scope = {n: v for n, v in {**values, **work.values}.items() if v is not None}
    model = optimised.export()
    compare(want, optimised.run_onnx(model))
    compare(want, optimised.run_imported(model))
