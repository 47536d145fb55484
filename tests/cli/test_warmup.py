"""`millstream warmup`: every kernel that programs reach is compiled by its examples."""

import importlib

import torch

from millstream.cli import main, warmup
from millstream.kernels import classifier, crf, dense_back, gru, normed_rows, openmp, pairs, softmax_loss, team

# by module: the kernels that operators call; others run within these
CALLED = {
    "attention_lstm": ["forward"],
    "batch_norm": ["count", "apply_line", "_relu_of_sum", "_back_sums", "_back_sums_of_sum", "_back", "_back_of_sum"],
    "depthwise": ["_forward", "_back_input"], "depthwise_filter": ["back_filter"],
    "turn_channels": ["_turn"], "interp": ["_rows", "_numbers"],
    "dense": ["layer_at"], "dense_back": ["back_at", "step_at"], "laid": ["product_laid_at"],
    "beam": ["select"], "crf": ["cost", "cost_back", "viterbi"], "ctc": ["loss"], "nms": ["greedy"],
    "narrow": ["product", "gradients"], "classifier": ["classify_at", "joined"],
    "pooled": ["forward", "backward"],
    "gru": ["forward", "backward", "projected"], "gru_unit": ["forward", "backward"],
    "lstm": ["forward", "backward"], "lstmp": ["forward", "backward"],
    "edit_distance": ["distances", "align", "count_chunks"], "panels": ["lay_out"], "partial_sort": ["top_rows"],
    "roi": ["align", "align_grad", "maximum", "position", "position_grad"], "row_machine": ["run"],
    "rows": ["_number", "_add", "_outside", "_add_scaled", "_gather_sums", "spread", "_adagrad", "_adam"],
    "segment": [
        "pool_sum", "pool_max", "pool_max_back", "softmax", "softmax_back", "context_gather", "context_scatter",
    ],
    "bigru": ["from_rows", "from_ids", "batch_from_rows", "batch_from_ids", "outside"],
    "bigru_tagger": ["tag"],
    "tiles": ["few_rows_at", "many_rows_at", "turned_at"],
    "pieces": ["between", "hard_swish", "hard_swish_back"],
    "scaled_maps": ["relu_of_sum", "back", "back_of_sum", "line", "offsets", "sums", "sums_of_sum"],
    "window_rows": ["filter_gradient"], "grouped": ["lay_out_filters", "correlate", "backward", "collect_filters"],
    "winograd": [
        "forward", "forward_by_panels", "filters", "filter_gradient", "filter_gradient_by_panels", "taps_gradient",
    ],
    "normed_rows": ["lay_out", "forward", "backward", "back", "give_pictures", "relu_back", "back_at"],
    "layer_norm": ["forward", "backward"], "normed_depthwise": ["forward", "backward", "backward_2"],
    "softmax_loss": ["outside", "losses", "losses_back", "losses_with_gradient"], "xxhash": ["hash_rows"],
    "normed_vectors": ["lay_line", "measure", "give_back", "take_off", "join"],
    "updates": ["sgd", "momentum", "adam"],
}  # fmt: skip
if pairs.available():
    CALLED["pair_attention"] = ["padded", "room_for", "forward", "backward"]
    CALLED["pair_tiles"] = ["product_at", "over_rows_at", "lay_out"]
    CALLED["normed_pairs"] = ["forward", "backward", "join"]
    CALLED["winograd_pairs"] = ["forward", "filters", "filter_gradient", "pixels_in_pairs", "filter_gradient_by_panels"]


def test_all_kernels_are_compiled(capsys):
    assert main(["warmup", "--processes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(warmup.EXAMPLES) + 1 and lines[0].startswith("[1/") and "lstm" in lines[0]
    cold = []
    for module, names in CALLED.items():
        kernels = importlib.import_module(f"millstream.kernels.{module}")
        cold += [f"{module}.{name}" for name in names if not getattr(kernels, name).signatures]
    assert not cold
    if torch.get_num_threads() > 1 and openmp.available():
        # their parts
        apart = classifier.classify_at, gru.forward, gru.backward, crf.cost, crf.cost_back, normed_rows.lay_out
        apart = *apart, softmax_loss.losses
        assert not [k for k in (*apart, dense_back.back_at, dense_back.step_at) if not team._handing(k).signatures]
    sums = importlib.import_module("millstream.kernels.batch_norm").count
    assert {str(form[0].dtype) for form in sums.signatures} >= {"float32", "uint16"}  # bfloat16 as its bits


def test_a_second_process_starts_from_the_end(capsys, monkeypatch):
    started, stopped = [], []

    class Other:
        def __init__(self, command, **more):
            started.append(command)

        def terminate(self):
            stopped.append("terminate")

        def wait(self):
            stopped.append("wait")

    monkeypatch.setattr(warmup, "EXAMPLES", {"products": warmup._products, "rows": warmup._many_rows})
    monkeypatch.setattr(warmup.subprocess, "Popen", Other)
    monkeypatch.setattr(warmup.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert main(["warmup"]) == 0
    assert len(started) == 1 and started[0][-3:] == ["warmup", "--quiet", "--backwards"] and stopped == ["terminate", "wait"]
    capsys.readouterr()
    assert main(["warmup", "--backwards"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[:2]] == ["rows:", "products:"]
    monkeypatch.setattr(warmup.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert main(["warmup"]) == 0 and len(started) == 1


def test_quiet(capsys, monkeypatch):
    monkeypatch.setattr(warmup, "EXAMPLES", {"products": warmup._products})
    assert main(["warmup", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("millstream is warm")
