"""``millstream warmup`` compiles the loops that programs would compile at first use, and leaves them on disk."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from millstream.cli._command import Command

Feed = dict[str, Any]
Example = Callable[[Any, Feed], list[Any]]  # (fluid, feed to fill in) -> what to fetch

LENGTHS = [[3, 1, 2]]
ROWS, WIDTH, TAGS = 6, 16, 5


def _sequence(fluid: Any, feed: Feed, name: str, width: int, dtype: str = "float32") -> Any:
    """A data layer of three short sequences, fed."""
    values = np.arange(ROWS * width).reshape(ROWS, width) % 3
    feed[name] = fluid.create_lod_tensor(values.astype(dtype), LENGTHS, None)
    var = fluid.data(name, [None, width], dtype, 1)
    var.stop_gradient = False
    return var


def _dense(fluid: Any, feed: Feed, name: str, shape: list[int], dtype: str = "float32") -> Any:
    feed[name] = (np.arange(np.prod(shape)).reshape(shape) % 3).astype(dtype)
    var = fluid.data(name, shape, dtype)
    var.stop_gradient = False
    return var


def _trained(fluid: Any, out: Any) -> list[Any]:
    loss = fluid.layers.mean(out)
    block = loss.block
    made = [grad for _, grad in fluid.backward.append_backward(loss)]
    given = [name for name in block.vars if name.endswith("@GRAD") and block.vars[name[:-5]].is_data]
    return [loss, *made, *given]  # what nobody fetches is not computed


def _lstm(fluid: Any, feed: Feed) -> list[Any]:
    return _trained(fluid, fluid.layers.dynamic_lstm(_sequence(fluid, feed, "x", 4 * WIDTH), 4 * WIDTH)[0])


def _lstmp(fluid: Any, feed: Feed) -> list[Any]:
    return _trained(fluid, fluid.layers.dynamic_lstmp(_sequence(fluid, feed, "x", 4 * WIDTH), 4 * WIDTH, 8)[0])


def _gru(fluid: Any, feed: Feed) -> list[Any]:
    return _trained(fluid, fluid.layers.dynamic_gru(_sequence(fluid, feed, "x", 3 * WIDTH), WIDTH))


def _gru_unit(fluid: Any, feed: Feed) -> list[Any]:
    x, h = _dense(fluid, feed, "x", [2, 3 * WIDTH]), _dense(fluid, feed, "h", [2, WIDTH])
    return _trained(fluid, fluid.layers.gru_unit(x, h, 3 * WIDTH)[0])


def _gru_inference(fluid: Any, feed: Feed) -> list[Any]:
    x = fluid.layers.fc(_sequence(fluid, feed, "x", 8), 3 * WIDTH)
    return [fluid.layers.dynamic_gru(x, WIDTH)]


def _attention(fluid: Any, feed: Feed) -> list[Any]:
    x = _sequence(fluid, feed, "x", 8)
    shapes = {"C0": [3, WIDTH], "AttentionWeight": [8 + WIDTH, 1], "LSTMWeight": [WIDTH + 8, 4 * WIDTH]}
    shapes["LSTMBias"] = [1, 4 * WIDTH]
    inputs = {slot: _dense(fluid, feed, slot, shape) for slot, shape in shapes.items()}
    slots = ("Hidden", "Cell", "AttentionedX", "AttentionFCOut", "LSTMX", "LSTMOUT")
    outs = {slot: x.block.create_var(name=slot, dtype="float32") for slot in slots}
    x.block.append_op("attention_lstm", {"X": x, **inputs}, outs, {})
    return [outs["Hidden"]]


def _batch_norm(fluid: Any, feed: Feed) -> list[Any]:
    x, layers = _dense(fluid, feed, "x", [2, WIDTH, 32, 32]), fluid.layers
    sums = []
    for dtype in ("float32", "bfloat16"):
        first = layers.batch_norm(layers.cast(x, dtype), act="relu", data_layout="NHWC")
        second = layers.batch_norm(first, data_layout="NHWC")
        sums.append(layers.cast(layers.elementwise_add(first, second, act="relu"), "float32"))
    return _trained(fluid, layers.elementwise_add(*sums))


def _pieces(fluid: Any, feed: Feed) -> list[Any]:
    """Activations over many numbers."""
    layers = fluid.layers
    x = layers.batch_norm(_dense(fluid, feed, "x", [2, 128, 128, WIDTH]), data_layout="NHWC")
    return _trained(fluid, layers.hard_swish(layers.relu6(layers.scale(x, 2.0))))


def _depthwise(fluid: Any, feed: Feed) -> list[Any]:
    """With dilation, behind a shuffle of channels."""
    x = fluid.layers.conv2d(_dense(fluid, feed, "x", [2, 32, 40, 40]), 32, 1)
    groups = fluid.layers.reshape(x, [-1, 2, 16, 40, 40])
    x = fluid.layers.reshape(fluid.layers.transpose(groups, [0, 2, 1, 3, 4]), [-1, 32, 40, 40])
    return _trained(fluid, fluid.layers.conv2d(x, 32, 3, dilation=2, groups=32, bias_attr=False))


def _between_norms(fluid: Any, feed: Feed) -> list[Any]:
    """1x1 and depthwise convolutions between batch normalisations."""
    layers = fluid.layers
    y = _dense(fluid, feed, "x", [2, 16, 64, 64])
    for filters, size, stride, groups in ((24, 5, 1, 1), (24, 1, 1, 1), (24, 3, 1, 24), (24, 3, 2, 24)):
        made = layers.conv2d(
            y, filters, size, stride=stride, padding=size // 2, groups=groups, bias_attr=False, use_cudnn=False
        )  # fmt: skip
        y = layers.batch_norm(made, act="relu")
    return _trained(fluid, y)


def _large_filters(fluid: Any, feed: Feed) -> list[Any]:
    """1x1 filters between batch normalisations that are large for as few pixels."""
    layers, y = fluid.layers, _dense(fluid, feed, "x", [1, 16, 14, 14])
    for filters in (256, 512, 256):
        y = layers.batch_norm(layers.conv2d(y, filters, 1, bias_attr=False), act="relu")
    return _trained(fluid, y)


def _brain_between_norms(fluid: Any, feed: Feed) -> list[Any]:
    """1x1 filters of both kinds between batch normalisations, in bfloat16."""
    layers = fluid.layers
    wide, deep = _dense(fluid, feed, "x", [1, 32, 32, 32]), _dense(fluid, feed, "y", [1, 512, 4, 4])
    losses = []
    for x, width in ((wide, 32), (deep, 512)):
        for _ in range(3):
            x = layers.batch_norm(layers.conv2d(x, width, 1, bias_attr=False), act="relu")
        losses.append(layers.mean(x))
    loss = layers.elementwise_add(*losses)
    optimizer = fluid.contrib.mixed_precision.decorate(fluid.optimizer.SGD(0.0), dtype="bfloat16")
    optimizer.minimize(loss)
    return [loss]


def _small_filters(fluid: Any, feed: Feed) -> list[Any]:
    """3x3 filters: over many pixels, many over few pixels, and with a stride."""
    layers = fluid.layers
    first = layers.conv2d(_dense(fluid, feed, "x", [1, WIDTH, 64, 64]), 2 * WIDTH, 3, padding=1)
    many = layers.conv2d(_dense(fluid, feed, "y", [1, 128, 16, 16]), 128, 3, padding=1)
    strided = layers.conv2d(first, WIDTH, 3, padding=1, stride=2)
    return _trained(fluid, layers.elementwise_add(layers.mean(strided), layers.mean(many)))


def _pooled(fluid: Any, feed: Feed) -> list[Any]:
    """A maximum behind a convolution's bias and relu."""
    x = fluid.layers.conv2d(_dense(fluid, feed, "x", [2, 3, 8, 8]), WIDTH, 3, padding=1, act="relu")
    return _trained(fluid, fluid.layers.pool2d(x, 2, pool_stride=2))


def _grouped_filters(fluid: Any, feed: Feed) -> list[Any]:
    """3x3 filters of groups of channels."""
    layers = fluid.layers
    first = layers.conv2d(_dense(fluid, feed, "x", [1, 64, 48, 48]), 64, 3, padding=1, groups=8)
    return _trained(fluid, layers.conv2d(first, 64, 3, padding=1, stride=2, groups=2))


def _scaled_maps(fluid: Any, feed: Feed) -> list[Any]:
    """A number for each channel, with a sum and a relu behind it and without."""
    layers = fluid.layers
    x, scale = layers.conv2d(_dense(fluid, feed, "x", [1, 8, 64, 64]), 32, 1), _dense(fluid, feed, "scale", [1, 32])
    y = layers.relu(layers.elementwise_mul(x, scale, axis=0) + x)
    return _trained(fluid, layers.elementwise_mul(y, scale, axis=0))


def _excited_norms(fluid: Any, feed: Feed) -> list[Any]:
    """Squeeze-and-excitation behind batch normalisations, with a sum and a relu behind it and without."""
    layers, x = fluid.layers, _dense(fluid, feed, "x", [1, 2 * WIDTH, 64, 64])
    for last in (False, True):
        y = layers.batch_norm(layers.conv2d(x, 2 * WIDTH, 1, bias_attr=False))
        scale = layers.fc(layers.pool2d(y, pool_type="avg", global_pooling=True), 2 * WIDTH)
        y = layers.elementwise_mul(y, scale, axis=0)
        x = layers.relu(y + x) if last else y
    return _trained(fluid, x)


def _brain_filters(fluid: Any, feed: Feed) -> list[Any]:
    """The same in bfloat16."""
    layers, means = fluid.layers, []
    for name, width, size in (("x", 64, 32), ("y", 128, 16)):
        out = layers.cast(_dense(fluid, feed, name, [1, width, size, size]), "bfloat16")
        filters = layers.cast(_dense(fluid, feed, f"{name}_filters", [width, width, 3, 3]), "bfloat16")
        result = out.block.create_var(name=f"{name}_out", dtype="bfloat16")
        attrs = {"strides": [1, 1], "paddings": [1, 1], "dilations": [1, 1], "groups": 1}
        out.block.append_op("conv2d", {"Input": out, "Filter": filters}, {"Output": result}, attrs)
        means.append(layers.mean(layers.cast(result, "float32")))
    return _trained(fluid, layers.elementwise_add(*means))


def _resized(fluid: Any, feed: Feed) -> list[Any]:
    x = fluid.layers.fc(_dense(fluid, feed, "x", [1, 4, 9, 9]), 4 * 81)
    return _trained(fluid, fluid.layers.resize_bilinear(fluid.layers.reshape(x, [1, 4, 9, 9]), [129, 129]))


def _loop(fluid: Any, feed: Feed) -> list[Any]:
    x, layers = _sequence(fluid, feed, "x", 8), fluid.layers
    rnn = layers.DynamicRNN()
    with rnn.block():
        word, state = rnn.step_input(x), rnn.memory(shape=[WIDTH], value=0.0)
        new = layers.fc([word, state], WIDTH, act="tanh")
        rnn.update_memory(state, new)
        rnn.output(new)
    return _trained(fluid, rnn())


def _crf(fluid: Any, feed: Feed) -> list[Any]:
    emission = _sequence(fluid, feed, "x", TAGS)
    label = _sequence(fluid, feed, "label", 1, "int64")
    attr = fluid.ParamAttr(name="transition")
    cost = _trained(fluid, fluid.layers.linear_chain_crf(emission, label, param_attr=attr))
    return [*cost, fluid.layers.crf_decoding(emission, attr)]


def _ctc(fluid: Any, feed: Feed) -> list[Any]:
    logits, label = _sequence(fluid, feed, "x", TAGS), _sequence(fluid, feed, "label", 1, "int32")
    loss = _trained(fluid, fluid.layers.warpctc(logits, label, blank=TAGS - 1))
    return [*loss, fluid.layers.ctc_greedy_decoder(fluid.layers.softmax(logits), TAGS - 1)]


def _sequences(fluid: Any, feed: Feed) -> list[Any]:
    x, layers = _sequence(fluid, feed, "x", 8), fluid.layers
    pooled = [layers.sequence_pool(x, kind) for kind in ("sum", "max", "average", "last")]
    wide = layers.sequence_conv(x, 8, 3)
    weights = layers.sequence_softmax(layers.fc(x, 1))
    return _trained(fluid, layers.concat([*pooled, layers.sequence_pool(wide * weights, "sum")], 1))


def _metrics(fluid: Any, feed: Feed) -> list[Any]:
    ids, layers = _sequence(fluid, feed, "ids", 1, "int64"), fluid.layers
    distance, _ = layers.edit_distance(ids, ids)
    counted = layers.chunk_eval(ids, ids, "IOB", 1)
    values, _ = layers.topk(_dense(fluid, feed, "x", [4, 100]), 3)
    return [distance, counted[0], values, layers.hash(ids, 100, 2)]


def _rows(fluid: Any, feed: Feed) -> list[Any]:
    ids = _dense(fluid, feed, "ids", [8, 1], "int64")
    updates = fluid.optimizer.Adagrad(0.1), fluid.optimizer.Adam(0.1, lazy_mode=True), fluid.optimizer.Momentum(0.1, 0.9)
    losses = [fluid.layers.mean(fluid.layers.embedding(ids, [10, WIDTH], is_sparse=True)) for _ in updates]
    for update, loss in zip(updates, losses):
        update.minimize(loss)
    return losses


def _many_rows(fluid: Any, feed: Feed) -> list[Any]:
    ids = _dense(fluid, feed, "ids", [4096 // WIDTH, 1], "int64")
    loss = fluid.layers.mean(fluid.layers.embedding(ids, [10, WIDTH], is_sparse=True))
    fluid.optimizer.SGD(0.1).minimize(loss)
    return [loss]


def _pooled_lookups(fluid: Any, feed: Feed) -> list[Any]:
    slots = [_sequence(fluid, feed, f"ids{k}", 1, "int64") for k in range(2)]
    rows = [fluid.layers.embedding(ids, [10, WIDTH], is_sparse=True) for ids in slots]
    return _trained(fluid, fluid.layers.concat([fluid.layers.sequence_pool(r, "sum") for r in rows], 1))


def _products(fluid: Any, feed: Feed) -> list[Any]:
    return [fluid.layers.fc(_dense(fluid, feed, "x", [16, 128]), 128)]


def _many_products(fluid: Any, feed: Feed) -> list[Any]:
    x = _dense(fluid, feed, "x", [272, 64])
    y = fluid.layers.fc(fluid.layers.fc(x, 64, act="relu"), 64)
    return _trained(fluid, fluid.layers.square(fluid.layers.fc(fluid.layers.fc(y, 64, bias_attr=False), 2)))


def _moving_weights(fluid: Any, feed: Feed) -> list[Any]:
    """A layer whose weight moves as its gradient is made."""
    layers = fluid.layers
    loss = layers.mean(layers.square(layers.fc(_dense(fluid, feed, "x", [272, 128]), 128)))
    fluid.optimizer.SGD(0.1).minimize(loss)
    return [loss]


def _brain_products(fluid: Any, feed: Feed) -> list[Any]:
    """In bfloat16: of rows, with a matrix as it stands and turned, and over rows."""
    x, w = (fluid.layers.cast(_dense(fluid, feed, n, s), "bfloat16") for n, s in (("x", [272, 64]), ("w", [64, 128])))
    return _trained(fluid, fluid.layers.cast(fluid.layers.mul(x, w), "float32"))


def _brain_attention(fluid: Any, feed: Feed) -> list[Any]:
    layers = fluid.layers
    shapes = {"Q": [4, 2, 64, 32], "K": [4, 2, 64, 32], "V": [4, 2, 64, 32], "Mask": [64, 64]}
    given = {slot: layers.cast(_dense(fluid, feed, slot, shape), "bfloat16") for slot, shape in shapes.items()}
    block = given["Q"].block
    outs = {slot: block.create_var(name=f"attention_{slot}", dtype="bfloat16") for slot in ("Out", "Weights")}
    block.append_op("attention_layer", given, outs, {"scale": 0.2})
    return _trained(fluid, layers.cast(outs["Out"], "float32"))


def _brain_norm(fluid: Any, feed: Feed) -> list[Any]:
    x = fluid.layers.cast(_dense(fluid, feed, "x", [256, 128]), "bfloat16")
    block, float32 = x.block, {"dtype": "float32"}
    made = {"Y": block.create_var(name="normal", dtype="bfloat16")}
    made.update({slot: block.create_var(name=f"normal_{slot}", **float32) for slot in ("Mean", "Variance")})
    parameters = {slot: fluid.layers.create_parameter([128], "float32") for slot in ("Scale", "Bias")}
    block.append_op("layer_norm", {"X": x, **parameters}, made, {"begin_norm_axis": 1})
    return _trained(fluid, fluid.layers.cast(made["Y"], "float32"))


def _brain_updates(fluid: Any, feed: Feed) -> list[Any]:
    """Updates of large parameters by gradients of bfloat16."""
    shape, found = [256, 256], []
    grad, rate = fluid.layers.cast(_dense(fluid, feed, "grad", shape), "bfloat16"), _dense(fluid, feed, "rate", [1])
    for kind, slots in (("sgd", ""), ("momentum", "Velocity"), ("adam", "Moment1 Moment2 Beta1Pow Beta2Pow")):
        held = {s: [_dense(fluid, feed, f"{kind}_{s}", [1] if "Pow" in s else shape)] for s in ["Param", *slots.split()]}
        attrs = {"mu": 0.9} if kind == "momentum" else {}
        outs = {f"{slot}Out": held[slot] for slot in held}
        grad.block.append_op(f"fused_{kind}", {**held, "Grad": [grad], "LearningRate": rate}, outs, attrs)
        found += held["Param"]
    return found


def _scored(fluid: Any, feed: Feed) -> Any:
    """Losses of many scores."""
    scores, label = _dense(fluid, feed, "x", [64, 1024]), _dense(fluid, feed, "label", [64, 1], "int64")
    return fluid.layers.cross_entropy(fluid.layers.softmax(scores), label)


def _many_classes(fluid: Any, feed: Feed) -> list[Any]:
    return _trained(fluid, _scored(fluid, feed))


def _weighted_classes(fluid: Any, feed: Feed) -> list[Any]:
    """The gradient of each loss is not known beforehand."""
    return _trained(fluid, _scored(fluid, feed) * 2.0)


def _few_classes(fluid: Any, feed: Feed) -> list[Any]:
    scores = fluid.layers.fc(_dense(fluid, feed, "x", [64, 32]), TAGS, act="softmax")
    return _trained(fluid, fluid.layers.cross_entropy(scores, _dense(fluid, feed, "label", [64, 1], "int64")))


def _two_ways(fluid: Any, feed: Feed) -> list[Any]:
    """A tagger's two directions, in the operators that a loaded model has for them."""
    import millstream

    x = fluid.layers.embedding(_sequence(fluid, feed, "words", 1, "int64"), [10, WIDTH])
    for _ in range(2):
        ways = [fluid.layers.dynamic_gru(fluid.layers.fc(x, 3 * WIDTH), WIDTH, is_reverse=back) for back in (False, True)]
        x = fluid.layers.concat(ways, axis=1)
    moves = fluid.ParamAttr("moves")
    fluid.layers.create_parameter([TAGS + 2, TAGS], "float32", attr=moves)
    tags = fluid.layers.crf_decoding(fluid.layers.fc(x, TAGS), moves)
    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(fluid.default_startup_program())
    for out in (x, tags):
        with tempfile.TemporaryDirectory() as folder:
            fluid.io.save_inference_model(folder, ["words"], [out], exe)
            model = millstream.load(folder)
            model(feed["words"])  # several sequences at a time, and one, are kernels of their own
            model(fluid.create_lod_tensor(np.arange(ROWS).reshape(ROWS, 1), [[ROWS]], None))
    return [x]


def _beam(fluid: Any, feed: Feed) -> list[Any]:
    shapes = {"pre_ids": ([2, 1], "int64"), "pre_scores": ([2, 1], "float32"), "ids": ([2, 3], "int64")}
    inputs = [_dense(fluid, feed, name, *given) for name, given in {**shapes, "scores": ([2, 3], "float32")}.items()]
    feed["pre_ids"] = fluid.create_lod_tensor(feed["pre_ids"], [[1, 1], [1, 1]], None)
    feed["scores"] = fluid.create_lod_tensor(feed["scores"], [[1, 1], [1, 1]], None)
    return list(fluid.layers.beam_search(*inputs, beam_size=2, end_id=0))


def _boxes(fluid: Any, feed: Feed) -> list[Any]:
    layers = fluid.layers
    boxes = _dense(fluid, feed, "boxes", [1, 4, 4])
    kept = layers.multiclass_nms(boxes, _dense(fluid, feed, "scores", [1, 2, 4]), 0.1, 4, 4)
    x, rois = _dense(fluid, feed, "x", [1, 8, 9, 9]), _sequence(fluid, feed, "rois", 4)
    feed["rois"].set_lod([[0, ROWS]])
    pooled = [layers.roi_align(x, rois, 2, 2), layers.roi_pool(x, rois, 2, 2), layers.psroi_pool(x, rois, 2, 1.0, 2, 2)]
    return [kept, *_trained(fluid, layers.sum([layers.mean(p) for p in pooled]))]


EXAMPLES: dict[str, Example] = {
    "lstm": _lstm, "lstm with projection": _lstmp, "gru": _gru, "gru, inference": _gru_inference,
    "gru, one step": _gru_unit, "attention": _attention,
    "loop": _loop, "crf": _crf, "ctc": _ctc, "batch normalisation": _batch_norm, "activations": _pieces,
    "depthwise": _depthwise,
    "convolutions between normalisations": _between_norms, "large filters between normalisations": _large_filters,
    "convolutions between normalisations in bfloat16": _brain_between_norms,
    "scaled channels": _scaled_maps,
    "scaled normalisations": _excited_norms,
    "small filters": _small_filters, "small filters in groups": _grouped_filters,
    "maxima behind convolutions": _pooled,
    "small filters in bfloat16": _brain_filters, "resizing": _resized,
    "sequences": _sequences, "metrics, top-k, hash": _metrics,
    "sparse rows": _rows, "many sparse rows": _many_rows, "pooled lookups": _pooled_lookups,
    "products of few rows": _products, "products of many rows": _many_products,
    "moving weights": _moving_weights,
    "products in bfloat16": _brain_products, "attention in bfloat16": _brain_attention,
    "layer normalisation in bfloat16": _brain_norm,
    "updates in bfloat16": _brain_updates,
    "losses over many classes": _many_classes, "losses times a weight": _weighted_classes,
    "a classifier's last layer": _few_classes,
    "gru in both directions": _two_ways, "beam search": _beam, "boxes": _boxes,
}  # fmt: skip


def warm_up(backwards: bool = False) -> Iterator[tuple[str, float]]:
    """Run each example, or the last one first; yields (its name, seconds it took) when it is done."""
    import millstream.fluid as fluid

    for name, example in reversed(EXAMPLES.items()) if backwards else EXAMPLES.items():
        start = time.perf_counter()
        main, startup = fluid.Program(), fluid.Program()
        feed: Feed = {}
        with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(main, startup):
            fetches = example(fluid, feed)
            exe = fluid.Executor(fluid.CPUPlace())
            exe.run(startup)
            exe.run(main, feed=feed, fetch_list=fetches, return_numpy=False)
        yield name, time.perf_counter() - start


def _other_process() -> subprocess.Popen[bytes] | None:
    """One that starts from the last example, where there is a second core: this one finds what it compiled on disk."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2 or len(EXAMPLES) < 2:
        return None
    command = [sys.executable, "-m", "millstream", "warmup", "--quiet", "--backwards"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _run(arguments: argparse.Namespace) -> int:
    from millstream.kernels import threads

    start, worth = time.perf_counter(), threads.WORTH
    log = logging.getLogger("millstream.kernels")
    level = log.level
    log.setLevel(logging.ERROR)  # that kernels are compiled is no news here
    other = None if arguments.backwards or arguments.processes < 2 else _other_process()
    try:
        threads.WORTH = 1  # small examples have several parts as well, which are compiled beside the kernels
        for at, (name, seconds) in enumerate(warm_up(arguments.backwards), 1):
            if not arguments.quiet:
                sys.stdout.write(f"[{at}/{len(EXAMPLES)}] {name}: {seconds:.1f} s\n")
                sys.stdout.flush()
    finally:
        log.setLevel(level)
        threads.WORTH = worth
        if other is not None:
            other.terminate()
            other.wait()
    sys.stdout.write(f"millstream is warm: {time.perf_counter() - start:.1f} s\n")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print the last line alone")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2, help="that compile (2, on two cores)")
    parser.add_argument("--backwards", action="store_true", help=argparse.SUPPRESS)


COMMAND = Command("warmup", "compile all kernels ahead and keep them on disk", _arguments, _run)
