"""ONNX models damaged in many ways, each a (name, bytes)."""

import numpy as np
import onnx

import millstream.fluid as fluid
from millstream import onnx as ms_onnx


def small_models():
    """[(name, ModelProto)] with convolutions, a recurrent network, control flow, shape arithmetic."""
    return [("convolution", _convolution()), ("recurrent", _recurrent()), ("flow", _flow())]


def _exported(build, **inputs):
    main, startup = fluid.Program(), fluid.Program()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        outs = build(fluid.layers)
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        fluid.Executor(fluid.CPUPlace()).run(startup)
    return ms_onnx.export(main.clone(for_test=True), list(inputs), [v.name for v in outs], scope)


def _convolution():
    def build(layers):
        x = layers.data("x", [3, 8, 8])
        y = layers.batch_norm(layers.conv2d(x, 4, 3, padding=1), act="relu")
        y = layers.pool2d(y, 2, "max", 2)
        return [layers.fc(layers.reshape(y, [0, -1, 4]), 5, num_flatten_dims=2, act="softmax")]

    return _exported(build, x=None)


def _recurrent():
    def build(layers):
        words = layers.data("words", [1], dtype="int64", lod_level=1)
        emb = layers.embedding(words, [20, 6])
        hidden = layers.dynamic_gru(layers.fc(emb, 12), 4)
        return [layers.sequence_pool(hidden, "max")]

    return _exported(build, words=None)


def _flow():
    def build(layers):
        x = layers.data("x", [4])
        i, n = layers.fill_constant([1], "int64", 0), layers.fill_constant([1], "int64", 3)
        _, y = layers.while_loop(lambda i, v: layers.less_than(i, n), lambda i, v: [i + 1, v * 2.0], [i, x])
        p = layers.less_than(layers.reduce_sum(x), layers.fill_constant([1], "float32", 0.0))
        return [layers.cond(p, lambda: y - 1.0, lambda: y + 1.0)]

    return _exported(build, x=None)


def random_damage(data, rng):
    """One of: cut off, bits flipped, a run of bytes overwritten, dropped or doubled."""
    kind = rng.randint(5)
    at = int(rng.randint(len(data)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        damaged = bytearray(data)
        for _ in range(int(rng.randint(1, 9))):
            damaged[int(rng.randint(len(data)))] ^= 1 << int(rng.randint(8))
        return bytes(damaged)
    size = int(rng.randint(1, 40))
    if kind == 2:  # lengths of fields become enormous here
        return data[:at] + bytes(rng.choice([0xFF, 0x7F, 0x80, 0x00], size).tolist()) + data[at + size :]
    return data[:at] + data[at + size :] if kind == 3 else data[: at + size] + data[at:]


def _copy(model):
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def semantic_damage(model, rng):
    """A well-formed file that says something impossible."""
    m = _copy(model)
    graph, kind = m.graph, int(rng.randint(16))
    node = graph.node[int(rng.randint(len(graph.node)))]
    tensor = graph.initializer[int(rng.randint(len(graph.initializer)))] if graph.initializer else None
    if kind == 0 and node.input:
        node.input[0] = node.output[0]  # a cycle
    elif kind == 1:
        order = rng.permutation(len(graph.node))
        nodes = [_node(graph.node[int(i)]) for i in order]
        del graph.node[:]
        graph.node.extend(nodes)
    elif kind == 2:
        node.op_type = str(rng.choice(["NoSuchOperator", "", "Conv", "LSTM", "Reshape", "Loop", "Scan", "If", "Gather"]))
    elif kind == 3 and tensor is not None:
        del graph.initializer[int(rng.randint(len(graph.initializer)))]
    elif kind == 4 and tensor is not None:
        tensor.dims.extend([int(rng.choice([-1, 0, 7, 2**40, 2**62]))])
    elif kind == 5 and tensor is not None:
        tensor.data_type = int(rng.choice([0, 8, 14, 15, 16, 99, 7, 11]))
    elif kind == 6 and tensor is not None:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        where = rng.choice(["../../etc/passwd", "/etc/passwd", "absent.bin", "", "a\0b", "sub/../../x"])
        tensor.external_data.add(key="location", value=str(where))
    elif kind == 7 and node.attribute:
        attribute = node.attribute[int(rng.randint(len(node.attribute)))]
        attribute.ints.extend([int(rng.choice([-1, 2**62, 0, 5]))])
    elif kind == 8 and node.attribute:
        node.attribute[int(rng.randint(len(node.attribute)))].type = int(rng.randint(1, 12))
    elif kind == 9:
        del node.input[int(rng.randint(len(node.input) + 1)) :]
    elif kind == 10:
        node.output[0] = graph.node[0].output[0] if node is not graph.node[0] else graph.input[0].name
    elif kind == 11:
        graph.output[0].name = "nothing"
    elif kind == 12:
        dims = graph.input[0].type.tensor_type.shape.dim
        dims[-1].dim_value = int(rng.choice([2**40, 2**62, 3, 1]))
    elif kind == 13:
        m.opset_import[0].version = int(rng.choice([-1, 0, 1, 99, 2**40]))
    elif kind == 14:
        m.opset_import[0].domain = "com.example"
    else:
        graph.input.append(graph.input[0])
    return m.SerializeToString()


def _node(node):
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    return twin


def corruptions(count, seed=0):
    """`count` damaged files, half of them random bytes, half of them well formed."""
    rng = np.random.RandomState(seed)
    models = small_models()
    for i in range(count):
        name, model = models[i % len(models)]
        if i % 2:
            yield f"{name}-bytes-{i}", random_damage(model.SerializeToString(), rng)
        else:
            yield f"{name}-meaning-{i}", semantic_damage(model, rng)
