"""The models of bench/inference.py: built through Fluid's API with random parameters, or those of jieba and LAC.

Classifiers end in scores before softmax, which random parameters would saturate; detectors in boxes and scores before
non-maximum suppression, which the engines compared with do not all have.
"""

import contextlib
import importlib.util
import math
import os
import sys

import numpy as np

import millstream.fluid as fluid

L = fluid.layers


def weights(x, size, groups=1, gain=1.0):
    """Parameters that keep the size of values (He et al. 2015) times `gain`."""
    std = gain * math.sqrt(2 / (x.shape[1] // groups * size * size))
    return fluid.ParamAttr(initializer=fluid.initializer.Normal(0.0, std))


def conv(x, width, size, stride=1, groups=1, act="relu", gain=1.0):
    """Convolution without bias, batch normalisation, activation."""
    attr = weights(x, size, groups, gain)
    x = L.conv2d(x, width, size, stride, (size - 1) // 2, groups=groups, bias_attr=False, param_attr=attr)
    return L.batch_norm(x, act=act, is_test=True)


def image(size):
    return fluid.data("image", [None, 3, size, size])


def resnet50():
    x = image(224)
    y = L.pool2d(conv(x, 64, 7, 2), 3, "max", 2, 1)
    for stage, (width, depth) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            z = conv(conv(conv(y, width, 1), width, 3, stride), width * 4, 1, act=None, gain=0.2)
            short = y if block else conv(y, width * 4, 1, stride, act=None)
            y = L.elementwise_add(short, z, act="relu")
    return [x], [L.fc(L.pool2d(y, pool_type="avg", global_pooling=True), 1000)]


SEPARABLE = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


def mobilenet_body(x, upto=13):
    y, width = conv(x, 32, 3, 2), 32
    for out, stride in SEPARABLE[:upto]:
        y = conv(conv(y, width, 3, stride, groups=width), out, 1)
        width = out
    return y


def mobilenet():
    x = image(224)
    y = L.pool2d(mobilenet_body(x), pool_type="avg", global_pooling=True)
    return [x], [L.fc(y, 1000)]


def vgg16():
    x = y = image(224)
    for width, depth in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(depth):
            y = L.conv2d(y, width, 3, padding=1, act="relu")
        y = L.pool2d(y, 2, "max", 2)
    for _ in range(2):
        y = L.dropout(L.fc(y, 4096, act="relu"), 0.5, is_test=True)
    return [x], [L.fc(y, 1000)]


def ssd_mobilenet():
    x = image(300)
    first = mobilenet_body(x, 11)
    width, y = 512, first
    for out, stride in SEPARABLE[11:]:
        y = conv(conv(y, width, 3, stride, groups=width), out, 1)
        width = out
    maps = [first, y]
    for out in (512, 256, 256, 128):
        y = conv(conv(y, out // 2, 1), out, 3, 2)
        maps.append(y)
    sizes = [60.0, 105.0, 150.0, 195.0, 240.0, 285.0]
    locations, scores, boxes, variances = L.multi_box_head(
        maps, x, 300, 21, [[2.0]] + [[2.0, 3.0]] * 5, min_sizes=sizes, max_sizes=[0.0, 150.0, 195.0, 240.0, 285.0, 300.0],
        flip=True, offset=0.5,
    )  # fmt: skip
    return [x], [L.box_coder(boxes, variances, locations, "decode_center_size"), L.softmax(scores)]


def yolov3():
    x = image(416)
    size = fluid.data("size", [None, 2], "int32")
    y, kept = conv(x, 32, 3, act="leaky_relu"), []
    for width, depth in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)]:
        y = conv(y, width, 3, 2, act="leaky_relu")
        for _ in range(depth):
            y = y + conv(conv(y, width // 2, 1, act="leaky_relu"), width, 3, act="leaky_relu", gain=0.2)
        kept.append(y)
    anchors = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326]
    results, route = [], None
    for level, (features, width) in enumerate(zip(kept[:1:-1], (512, 256, 128))):
        y = features if route is None else L.concat([route, features], 1)
        for out, kernel in ((width, 1), (width * 2, 3), (width, 1), (width * 2, 3), (width, 1)):
            y = conv(y, out, kernel, act="leaky_relu")
        wide = conv(y, width * 2, 3, act="leaky_relu")
        head = L.conv2d(wide, 255, 1, param_attr=weights(wide, 1, gain=0.3))
        masks = anchors[12 - 6 * level : 18 - 6 * level]
        results += L.yolo_box(head, size, masks, 80, 0.0, 32 >> level)
        route = L.resize_nearest(conv(y, width // 2, 1, act="leaky_relu"), scale=2.0)
    return [x, size], [L.concat(results[::2], 1), L.concat(results[1::2], 1)]


BERT = {"layers": 12, "width": 768, "heads": 12, "length": 128, "vocabulary": 30522}


def bert():
    layers, width, heads, length = BERT["layers"], BERT["width"], BERT["heads"], BERT["length"]
    ids = fluid.data("ids", [None, length], "int64")
    mask = fluid.data("mask", [None, 1, 1, length])
    y = fluid.embedding(ids, [BERT["vocabulary"], width])
    places = L.create_parameter([1, length, width], "float32")
    y = L.layer_norm(y + places, begin_norm_axis=2)
    for _ in range(layers):
        q, k, v = (L.fc(y, width, num_flatten_dims=2) for _ in range(3))
        q, k, v = (L.transpose(L.reshape(t, [0, 0, heads, width // heads]), [0, 2, 1, 3]) for t in (q, k, v))
        weights = L.softmax(L.matmul(q, k, transpose_y=True, alpha=1 / math.sqrt(width // heads)) + mask)
        z = L.reshape(L.transpose(L.matmul(weights, v), [0, 2, 1, 3]), [0, 0, width])
        y = L.layer_norm(y + L.fc(z, width, num_flatten_dims=2), begin_norm_axis=2)
        z = L.fc(L.fc(y, 4 * width, num_flatten_dims=2, act="gelu"), width, num_flatten_dims=2)
        y = L.layer_norm(y + z, begin_norm_axis=2)
    return [ids, mask], [y]


LAC = {"vocabulary": 58224, "word": 128, "hidden": 128, "layers": 2, "labels": 49, "length": 20}


def lac():
    """The tagger of the package LAC: an embedding, two bidirectional GRUs, a CRF; one LoD level in and out."""
    words = fluid.data("words", [None, 1], "int64", lod_level=1)
    y, hidden = L.embedding(words, [LAC["vocabulary"], LAC["word"]]), LAC["hidden"]
    for _ in range(LAC["layers"]):
        y = L.concat([L.dynamic_gru(L.fc(y, hidden * 3), hidden, is_reverse=back) for back in (False, True)], 1)
    scores = L.fc(y, LAC["labels"])
    moves = fluid.ParamAttr("moves", initializer=fluid.initializer.Uniform(-0.1, 0.1))
    L.create_parameter([LAC["labels"] + 2, LAC["labels"]], "float32", attr=moves)
    return [words], [L.crf_decoding(scores, fluid.ParamAttr("moves"))]


MODELS = {f.__name__: f for f in (resnet50, mobilenet, vgg16, ssd_mobilenet, yolov3, bert, lac)}


# ---- models of packages --------------------------------------------------------------------------------
def sentences():
    """What the lexical analysers get."""
    tests = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "apps")
    spec = importlib.util.spec_from_file_location("sentences", os.path.join(tests, "sentences.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.OWN


def jieba():
    """(exe, program, feeds, targets, ids of a sentence) of jieba's paddle mode."""
    import jieba
    with contextlib.redirect_stdout(sys.stderr):  # it prints
        jieba.enable_paddle()
        from jieba.lac_small import predict
    return predict.exe, predict.infer_program, ["words"], [predict.infer_ret["crf_decode"]], predict.dataset.get_vars


def lac_package(mode="lac"):
    """The same of the package LAC: its tagger, or its segmenter."""
    from LAC import LAC as Analyser
    analyser = Analyser(mode=mode)
    exe = fluid.Executor()
    loaded = fluid.io.load_inference_model(os.path.join(analyser.model.model_path, "model"), exe)
    return exe, *loaded, lambda text: analyser.model.texts2tensor([text])[0].data.int64_data()


PACKAGED = {"jieba": (jieba, "jieba"), "lac_tagger": (lac_package, "LAC")}
PACKAGED["lac_segmenter"] = (lambda: lac_package("seg"), "LAC")
_ids = {}


def left_out(name):
    """Why the model can't take part, or None."""
    missing = name in PACKAGED and importlib.util.find_spec(PACKAGED[name][1]) is None
    return f"the package {PACKAGED[name][1]} is not installed" if missing else None


def save(name, folder):
    """Save a model, one with random parameters or a package's."""
    files = ("__model__", "__params__")
    if name in PACKAGED:
        from millstream import paddle_alias
        paddle_alias.install()
        with fluid.scope_guard(fluid.Scope()), fluid.program_guard(fluid.Program(), fluid.Program()):
            exe, program, feeds, targets, to_ids = PACKAGED[name][0]()
            fluid.io.save_inference_model(folder, feeds, targets, exe, program, *files)
        _ids[name] = [np.array(to_ids(text), "int64").reshape(-1) for text in sentences()]
        return
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 3
    with fluid.unique_name.guard(), fluid.program_guard(main, startup), fluid.scope_guard(fluid.Scope()):
        feeds, targets = MODELS[name]()
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(folder, [f.name for f in feeds], targets, exe, main, *files)


def requests(name, batch):
    """All requests of a pass: one, or every sentence once."""
    if name not in PACKAGED:
        return [request(name, batch)]
    ids = _ids[name]
    return [{"words": ids[k : k + batch]} for k in range(0, len(ids) - batch + 1, batch)]


def request(name, batch):
    """Inputs by name."""
    rng = np.random.default_rng(1)
    if name == "lac":
        return {"words": list(rng.integers(0, LAC["vocabulary"], (batch, LAC["length"])))}
    if name == "bert":
        ids = rng.integers(0, BERT["vocabulary"], (batch, BERT["length"]))
        return {"ids": ids, "mask": np.zeros((batch, 1, 1, BERT["length"]), "float32")}
    size = {"ssd_mobilenet": 300, "yolov3": 416}.get(name, 224)
    found = {"image": rng.standard_normal((batch, 3, size, size)).astype("float32")}
    if name == "yolov3":
        found["size"] = np.full((batch, 2), size, "int32")
    return found


def arrays(feed):
    """The inputs as engines take them: sequences as rows and offsets."""
    if "words" not in feed:
        return feed
    lengths = [len(w) for w in feed["words"]]
    return {"words": np.concatenate(feed["words"])[:, None], "words.lod0": np.cumsum([0, *lengths])}


def parameters(folder):
    """Parameters in the order in which the saved Program's operators read them, and the scope that they are in."""
    scope, exe = fluid.Scope(), fluid.Executor()
    with fluid.scope_guard(scope):
        program, *_ = fluid.io.load_inference_model(folder, exe, "__model__", "__params__")
    found = {}
    for op in program.global_block().ops:
        for slot in ("Filter", "Scale", "W", "X", "Y", "Weight", "Bias", "Mean", "Variance", "Transition"):
            for var in op.input(slot):
                if program.global_block().var(var).persistable and op.type not in ("feed", "fetch"):
                    found.setdefault(var, np.array(scope.find_var(var).get_tensor()))
    return program, scope, found
