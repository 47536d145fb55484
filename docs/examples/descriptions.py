"""Operators' descriptions, drawings, and readers of Fluid 1.1

What an operator is, as a message; Programs as graphs; pictures of the first PaddlePaddle; names that 1.8.5 had dropped.
"""
# ruff: noqa
#: layers.OpProtoHolder, framework.get_all_op_protos
holder = layers.OpProtoHolder.instance()
proto = holder.get_op_proto("dropout")
print([s.name for s in proto.inputs], [(s.name, s.intermediate) for s in proto.outputs])
print([a.name for a in proto.attrs if a.name not in holder.generated_op_attr_names()])
print("relu" in {p.type for p in fluid.framework.get_all_op_protos()})
try:
    holder.get_op_proto("nonsense")
except ValueError as error:
    print(error)
#: op.OpDescCreationMethod, op.create_op_creation_method, op.OpInfo, op.get_all_op_protos, op.is_str
from millstream.fluid import op

proto = {p.type: p for p in op.get_all_op_protos()}["scale"]
desc = op.OpDescCreationMethod(proto)(X="x", Out="y", scale=0.5)
print(desc.type, [(s.parameter, list(s.arguments)) for s in desc.outputs], desc.attrs[0].f)
info = op.create_op_creation_method(proto)
print(isinstance(info, op.OpInfo), info.name, info.outputs, info.method(X="a", Out="b") != desc, op.is_str("a"))
#: op.OperatorFactory, op.Operator
from millstream.fluid import op

factory = op.OperatorFactory()
print(factory.get_op_input_names("scale"), factory.get_op_outputs("split"), "scale" in factory.types())
scope, place = fluid.core.Scope(), fluid.CPUPlace()
scope.var("x").get_tensor().set(np.array([1.0, 2.0], "float32"), place)
scope.var("y")
op.Operator("scale", X="x", Out="y", scale=3.0).run(scope, place)
print(np.array(scope.find_var("y").get_tensor()))
#: op.CondOp, op.RecurrentOp, op.DynamicRecurrentOp
from millstream.fluid import op

for build in (op.CondOp, op.RecurrentOp, op.DynamicRecurrentOp):  # they hold Blocks: layers build them
    try:
        build()
    except ValueError as error:
        print(error)
#: net_drawer.draw_graph, net_drawer.parse_graph, net_drawer.draw_node, net_drawer.draw_edge, net_drawer.unique_id
from millstream.fluid import graphviz, net_drawer

y = layers.relu(fluid.data("x", [None, 2]))
main = fluid.default_main_program()
graph = net_drawer.draw_graph(fluid.default_startup_program(), main, filename="net.gv")
print([node.label for node in graph.nodes], open("net.gv").read().startswith("digraph G {"))
graph = graphviz.Graph("mine")
net_drawer.parse_graph(main, graph, {})
print(len(graph.edges), net_drawer.draw_node(y.op)["label"], net_drawer.draw_edge({}, y.op, "X", "x"))
print(net_drawer.unique_id() < net_drawer.unique_id())
#: paddle.utils.image_util.ImageTransformer, paddle.utils.image_util.crop_img, paddle.utils.image_util.flip, paddle.utils.image_util.oversample, paddle.utils.image_util.preprocess_img
from millstream.utils import image_util

picture = np.arange(3 * 4 * 6, dtype="float32").reshape(3, 4, 6)
print(image_util.crop_img(picture, 2)[0].tolist(), image_util.flip(picture)[0, 0].tolist())
print(image_util.preprocess_img(picture, np.ones(12), 2, is_train=False)[:4])
print(image_util.oversample([picture.transpose(1, 2, 0)], (2, 3)).shape)
print(image_util.ImageTransformer((2, 0, 1), (2, 1, 0), np.array([1.0, 1.0, 1.0])).transformer(picture.transpose(1, 2, 0))[0, 0])
#: paddle.utils.image_util.load_image, paddle.utils.image_util.decode_jpeg, paddle.utils.image_util.resize_image, paddle.utils.image_util.load_meta
from PIL import Image

from millstream.utils import image_util

Image.fromarray(np.full((4, 6, 3), 7, "uint8")).save("a.png")
picture = image_util.load_image("a.png")
print(picture.size, image_util.resize_image(picture, 2).size)
print(image_util.decode_jpeg(open("a.png", "rb").read()).shape)
np.savez("mean.npz", data_mean=np.arange(48.0))
print(image_util.load_meta("mean.npz", mean_img_size=4, crop_size=2)[0].tolist())
#: io.default_collate_fn
print([column.tolist() for column in fluid.io.default_collate_fn([(1, [0.5, 1.0]), (2, [1.5, 2.0])])])
#: unique_name.generate_with_ignorable_key
print(fluid.unique_name.generate_with_ignorable_key("fc"))
with fluid.dygraph.guard():  # temporaries of the eager mode are not told apart
    print(fluid.unique_name.generate_with_ignorable_key("fc"))
#: layers.batch, layers.shuffle, layers.double_buffer, layers.random_data_generator
reader = layers.random_data_generator(low=0.0, high=1.0, shapes=[[3]], lod_levels=[0])  # readers of Fluid 1.1
reader = layers.double_buffer(layers.batch(layers.shuffle(reader, buffer_size=8), batch_size=4))
(x,) = [layers.read_file(reader)]
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
(found,) = exe.run(fetch_list=[x])
print(found.shape, bool((found >= 0).all() and (found < 1).all()))
#: layers.Preprocessor
reader = layers.py_reader(capacity=2, shapes=[[-1, 2]], dtypes=["float32"], use_double_buffer=False)
halves = layers.Preprocessor(reader=reader)
with halves.block():
    (pixels,) = halves.inputs()
    halves.outputs(pixels * 0.5)
x = layers.read_file(halves())
reader.decorate_paddle_reader(lambda: iter([[(np.array([2.0, 4.0], "float32"),)]]))
exe = fluid.Executor(fluid.CPUPlace())
exe.run(fluid.default_startup_program())
reader.start()
print(exe.run(fetch_list=[x])[0].tolist())
reader.reset()
#: layers.ParallelDo
x = data([[1.0], [2.0]])
places = layers.get_places(device_count=2)
pd = layers.ParallelDo(places)
with pd.do():
    pd.write_output(layers.mean(layers.scale(pd.read_input(x), scale=10.0)))
show(pd())
#: layers.open_files, layers.open_recordio_file
try:
    layers.open_recordio_file("train.recordio", shapes=[[-1, 2]], lod_levels=[0], dtypes=["float32"])
except NotImplementedError as error:  # the format is gone; 1.8.5 has no such function
    print("fluid.io.DataLoader.from_generator" in str(error))
try:
    layers.open_files(["train.recordio"], shapes=[[-1, 2]], lod_levels=[0], dtypes=["float32"])
except NotImplementedError as error:
    print("py_reader" in str(error))
#: layers.append_LARS
w = layers.create_parameter([2], "float32", default_initializer=fluid.initializer.Constant(3.0))
g = layers.fill_constant([2], "float32", 1.0)
rate = layers.fill_constant([1], "float32", 0.1)
rates = layers.append_LARS([(w, g)], rate, weight_decay=1.0)
show(*rates)  # 0.1 * |w| / (|g| + |w|)
print(w.optimize_attr["learning_rate"] is rates[0])
