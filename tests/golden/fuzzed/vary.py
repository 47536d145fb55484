"""Random variations of one-operator cases: other shapes, LoDs, data types, attributes, values, slots left out or repeated.

A variation need not make sense: whoever records it asks PaddlePaddle 1.8.5 and drops what that refuses.
Runs under Python 3.7.
"""

import copy
import json
import random

import numpy as np

WORDS = {
    "data_layout": ["NCHW", "NHWC", "AnyLayout"],
    "data_format": ["NCHW", "NHWC", "NCDHW", "NDHWC", "AnyLayout"],
    "gate_activation": ["sigmoid", "tanh", "relu", "identity"],
    "cell_activation": ["sigmoid", "tanh", "relu", "identity"],
    "candidate_activation": ["sigmoid", "tanh", "relu", "identity"],
    "proj_activation": ["sigmoid", "tanh", "relu", "identity"],
    "activation": ["sigmoid", "tanh", "relu", "identity", "leaky_relu", "elu"],
    "fc_activation": ["identity", "relu", "tanh", "sigmoid"],
    "activation_type": ["", "relu"],
    "interp_method": ["bilinear", "nearest", "bicubic", "trilinear"],
    "padding_algorithm": ["EXPLICIT", "SAME", "VALID"],
    "pooling_type": ["max", "avg"],
    "pooltype": ["SUM", "AVERAGE", "SQRT", "MAX", "LAST", "FIRST"],
    "reduction": ["none", "sum", "mean", "batchmean"],
    "mode": ["constant", "reflect", "edge", "all", "channel", "element"],
    "code_type": ["encode_center_size", "decode_center_size"],
    "match_type": ["bipartite", "per_prediction"],
    "mining_type": ["max_negative", "hard_example"],
    "chunk_scheme": ["IOB", "IOE", "IOBES", "plain"],
    "curve": ["ROC", "PR"],
    "ap_type": ["integral", "11point"],
    "dropout_implementation": ["downgrade_in_infer", "upscale_in_train"],
    "str_value": ["", "1.5", "2", "-3", "1e-3", "inf", "nan", "7"],
}
LEFT_ALONE = {"seed", "use_cudnn", "use_mkldnn", "use_quantizer", "fuse_with_relu", "is_distributed", "epmap", "table_names"}
TYPE_NUMBERS = ("dtype", "out_dtype", "in_dtype")
NUMBER_OF = {"float32": 5, "float64": 6, "int32": 2, "int64": 3}
FLOATS = ("float32", "float64")


def lengths(rng, total, count=None):
    """`count` sequence lengths, zeros among them, that add up to `total`."""
    count = rng.choice([1, 2, 3, 4]) if count is None else count
    ends = [0, *sorted(rng.randint(0, total) for _ in range(count - 1)), total]
    return [b - a for a, b in zip(ends, ends[1:])]  # noqa: RUF007


class Variation:
    """A case that is being changed.

    Attributes:
        case: the case's JSON, a copy.
        values: variable -> {'value': array, 'rows': array of a SelectedRows}.
    """

    def __init__(self, case, values, spec, siblings, seed):
        self.case = copy.deepcopy(case)
        self.values = {n: dict(v) for n, v in values.items()}
        self.spec, self.siblings = spec, siblings
        self.rng, self.draw = random.Random(seed), np.random.RandomState(seed % 2**31)
        self.op = self.case["ops"][self.case.get("main", 0)]

    def array(self, feed):
        return self.values[feed["name"]]["value"]

    def put(self, feed, array):
        self.values[feed["name"]]["value"] = np.ascontiguousarray(array)

    def dense(self):
        return [f for f in self.case["feeds"] if f.get("type", "LOD_TENSOR") == "LOD_TENSOR"]

    # ---- shapes
    def _resized(self, array, shape):
        size = int(np.prod(shape))
        if not array.size:
            return np.zeros(shape, array.dtype)
        picks = np.arange(size) if size <= array.size and self.rng.random() < 0.5 else self.draw.randint(0, array.size, size)
        out = array.reshape(-1)[picks].reshape(shape)
        if array.dtype.kind == "f":
            out = (out * (1 + 0.07 * self.draw.standard_normal(size=shape))).astype(array.dtype)
        return out

    def size(self):
        """One size becomes another wherever it stands, and so do its multiples and attributes of that number."""
        sizes = sorted({d for f in self.dense() for d in self.array(f).shape})
        if not sizes:
            return False
        old, new = self.rng.choice(sizes), self.rng.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9])
        becomes = {old: new}
        if old > 1 and self.rng.random() < 0.6:
            becomes.update({k * old: k * new for k in (2, 3, 4, 5, 6, 8)})
        only = self.rng.choice([None, None, None, 0, 1])
        for feed in self.dense():
            array = self.array(feed)
            shape = [becomes.get(d, d) if only in (None, i) else d for i, d in enumerate(array.shape)]
            lod = feed.get("lod")
            if lod and shape[0] != array.shape[0]:
                feed["lod"] = [*lod[:-1], lengths(self.rng, shape[0], len(lod[-1]) or 1)]
            if tuple(shape) != array.shape:
                self.put(feed, self._resized(array, shape))
        self._renumber(becomes)
        return old != new

    def _renumber(self, becomes):
        if self.rng.random() < 0.3:
            return
        for op in self.case["ops"]:
            for name, value in op["attrs"].items():
                if isinstance(value, list) and value and all(type(v) is int for v in value):
                    op["attrs"][name] = [becomes.get(v, v) for v in value]
                elif type(value) is int and self.rng.random() < 0.5:
                    op["attrs"][name] = becomes.get(value, value)

    def batch_of_one(self):
        feeds = [f for f in self.dense() if self.array(f).ndim]
        batch = self.array(feeds[0]).shape[0] if feeds else 0
        for feed in feeds:
            if self.array(feed).shape[0] == batch:
                self.put(feed, self.array(feed)[:1])
                if feed.get("lod"):
                    feed["lod"] = [[1]] * len(feed["lod"])
        return batch > 1

    def rank(self):
        feeds = [f for f in self.dense() if not f.get("lod")]
        how = self.rng.choice([lambda a: a[None], lambda a: a[..., None], lambda a: a.reshape(-1)])
        for feed in feeds:
            self.put(feed, how(self.array(feed)))
        return bool(feeds)

    # ---- LoD
    def lod(self):
        feeds = [f for f in self.dense() if f.get("lod")]
        if not feeds:
            feeds = [f for f in self.dense() if self.array(f).ndim and self.array(f).shape[0]][:1]
            for feed in feeds:
                feed["lod"] = [lengths(self.rng, self.array(feed).shape[0])]
            return bool(feeds)
        chosen = json.dumps(self.rng.choice(feeds)["lod"])
        lod = json.loads(chosen)
        count, total = len(lod[-1]), sum(lod[-1])
        lod = self.rng.choice(
            [
                [*lod[:-1], lengths(self.rng, total, count)],
                [*lod[:-1], lengths(self.rng, total, count)[::-1]],
                [*[[1]] * (len(lod) - 1), [total]],
                [lengths(self.rng, count), *lod],
                lod[1:],
            ]
        )
        for feed in feeds:
            if json.dumps(feed["lod"]) == chosen:
                feed["lod"] = copy.deepcopy(lod)
        return True

    # ---- attributes
    def attribute(self):
        known = [a for a in self.spec["attrs"] if a["name"] not in LEFT_ALONE]
        if not known:
            return False
        attr = self.rng.choice(known)
        name, kind = attr["name"], attr["type"]
        value = self.op["attrs"].get(name, attr.get("default"))
        if kind == "BOOLEAN":
            value = not value
        elif kind == "STRING" and name in WORDS:
            value = self.rng.choice(WORDS[name])
        elif kind in ("INT", "LONG"):
            n = value or 0
            value = self.rng.choice([0, 2, 3, 5, 6] if name in TYPE_NUMBERS else [n + 1, n - 1, 0, 1, 2, -1, -2, 3, n * 2])
        elif kind == "FLOAT":
            x = float(value or 0)
            value = self.rng.choice([x * 0.5, x * 2, 0.0, 1.0, -x, 0.1, 0.5, 0.9, 1.5, 2.0, x + 0.3])
        elif kind in ("INTS", "LONGS", "FLOATS") and value:
            value = self._list(list(value), kind == "FLOATS")
        else:
            return False
        self.op["attrs"][name] = value
        return True

    def _list(self, value, floats):
        i = self.rng.randrange(len(value))
        how = self.rng.choice(["item", "item", "item", "order", "double", "drop", "sign"])
        if how == "item":
            near = [value[i] * 0.5, value[i] + 1.0] if floats else [value[i] + 1, value[i] - 1, 0, 1, 2, -1]
            value[i] = self.rng.choice(near)
        elif how == "order":
            self.rng.shuffle(value)
        elif how == "double":
            value = [v for v in value for _ in (0, 1)]
        elif how == "drop":
            value.pop(i)
        else:
            value[i] = -value[i]
        return value

    def crossing(self):
        """Attributes of another case of the operator."""
        other = self.rng.choice(self.siblings)
        op = other["ops"][other.get("main", 0)]
        changed = False
        for name, value in op["attrs"].items():
            if op["type"] == self.op["type"] and self.rng.random() < 0.5 and self.op["attrs"].get(name) != value:
                self.op["attrs"][name] = copy.deepcopy(value)
                changed = True
        return changed

    # ---- slots
    def without(self):
        """An optional slot, or one of several variables in a slot, left out."""
        loose = {s["name"] for s in self.spec["inputs"] if s.get("dispensable") or s.get("duplicable")}
        slots = sorted(loose & set(self.op["inputs"]))
        if not slots:
            return False
        slot = self.rng.choice(slots)
        if len(self.op["inputs"][slot]) > 1 and self.rng.random() < 0.7:
            self.op["inputs"][slot].pop(self.rng.randrange(len(self.op["inputs"][slot])))
        else:
            del self.op["inputs"][slot]
        used = {n for op in self.case["ops"] for s in (op["inputs"], op["outputs"]) for names in s.values() for n in names}
        self.case["feeds"] = [f for f in self.case["feeds"] if f["name"] in used]
        self._wrt(lambda name: name in used)
        return True

    def _wrt(self, keep):
        if self.case.get("grad"):
            self.case["grad"]["wrt"] = [w for w in self.case["grad"]["wrt"] if keep(w["name"])]
            if not self.case["grad"]["wrt"]:
                del self.case["grad"]

    # ---- types and values
    def types(self):
        """Every float32 input (or float64, or one of the integer types) gets another type."""
        source, target = self.rng.choice(
            [("float32", "float64"), ("float64", "float32"), ("float32", "int32"), ("float32", "int64"), ("int64", "int32"),
             ("int32", "int64")]
        )  # fmt: skip
        changed = False
        for feed in self.case["feeds"]:
            if feed["dtype"] == source:
                factor = 3 if source in FLOATS and target not in FLOATS else 1
                self.put(feed, (self.array(feed) * factor).astype(target))
                feed["dtype"] = target
                changed = True
        for op in self.case["ops"]:
            for name in TYPE_NUMBERS:
                if op["attrs"].get(name) == NUMBER_OF[source]:
                    op["attrs"][name] = NUMBER_OF[target]
        floats = {f["name"] for f in self.case["feeds"] if f["dtype"] in FLOATS}
        self._wrt(lambda name: name in floats)
        return changed

    def numbers(self):
        feeds = [f for f in self.case["feeds"] if self.array(f).size]
        if not feeds:
            return False
        feed = self.rng.choice(feeds)
        a, draw = self.array(feed), self.draw
        mixed = draw.permutation(a.reshape(-1)).reshape(a.shape)
        if a.dtype.kind == "f":
            noise = draw.standard_normal(size=a.shape)
            ways = [mixed, a * 3, a * 0.3, -a, np.round(a * 2) / 2, a + 0.3 * noise, a * 30, np.where(noise < -0.3, 0, a)]
        elif a.dtype.kind == "b":
            ways = [draw.uniform(size=a.shape) < p for p in (0.0, 0.2, 0.8, 1.1)]
        else:
            ways = [mixed, a.reshape(-1)[draw.randint(0, a.size, a.size)].reshape(a.shape)]
        self.put(feed, ways[self.rng.randrange(len(ways))].astype(a.dtype))
        return True

    def rows(self):
        """Other rows of a SelectedRows, repeats among them."""
        feeds = [f for f in self.case["feeds"] if f.get("type") == "SELECTED_ROWS"]
        for feed in feeds[:1]:
            held, count = self.values[feed["name"]], self.rng.choice([1, 2, 3, 4, 5])
            a = held["value"]
            held["rows"] = self.draw.randint(0, int(feed["height"]), size=count).astype("int64")
            held["value"] = self._resized(a, (count, *a.shape[1:]))
        return bool(feeds)

    def finish(self):
        """Write the shapes of what is fed into the case."""
        for feed in self.case["feeds"]:
            array = self.array(feed)
            feed["shape"] = shape = list(array.shape)
            if feed.get("type") == "SELECTED_ROWS":
                feed["var_shape"] = [int(feed["height"]), *shape[1:]]
            else:
                feed["var_shape"] = [-1, *shape[1:]] if feed.get("lod") and shape else shape
        return self.case, self.values


WAYS = {
    "attribute": 5, "size": 4, "numbers": 3, "lod": 2, "crossing": 2, "types": 1.5, "rows": 1.5, "without": 1,
    "batch_of_one": 0.7, "rank": 0.3,
}  # fmt: skip


def vary(case, values, spec, siblings, seed):
    """(case, values) after one to four changes that `seed` chooses."""
    variation = Variation(case, values, spec, siblings, seed)
    left = variation.rng.choice([1, 1, 2, 2, 3, 4])
    for _ in range(20):
        way = variation.rng.choices(list(WAYS), list(WAYS.values()))[0]
        left -= bool(getattr(variation, way)())
        if left <= 0:
            break
    return variation.finish()
