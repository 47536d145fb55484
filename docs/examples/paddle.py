"""paddle: readers and data sets

A reader is a function without arguments that gives an iterator of samples. Data sets are downloaded once, to ~/.cache/paddle.
"""
# ruff: noqa
#: paddle.batch
batches = paddle.batch(lambda: iter(range(5)), batch_size=2)
print(list(batches()))
print(list(paddle.batch(lambda: iter(range(5)), batch_size=2, drop_last=True)()))
#: paddle.reader.shuffle
reader = paddle.reader.shuffle(lambda: iter(range(100)), buf_size=100)
print(sorted(reader()) == list(range(100)))
#: paddle.reader.buffered
print(list(paddle.reader.buffered(lambda: iter(range(4)), size=2)()))
#: paddle.reader.xmap_readers
reader = paddle.reader.xmap_readers(lambda x: x * x, lambda: iter(range(5)), process_num=2, buffer_size=4, order=True)
print(list(reader()))
#: paddle.reader.multiprocess_reader
def numbers(first):
    return lambda: iter([[first], [first + 1]])

reader = paddle.reader.multiprocess_reader([numbers(0), numbers(10)], use_pipe=True)
print(sorted(reader()))
#: paddle.compat.to_text
print(paddle.compat.to_text(b"text"), paddle.compat.to_text(["a", b"b"]))
#: paddle.dataset.image.to_chw
print(paddle.dataset.image.to_chw(np.zeros((4, 5, 3))).shape)
#: paddle.dataset.image.left_right_flip
print(paddle.dataset.image.left_right_flip(np.arange(6).reshape(1, 2, 3)).tolist())
#: paddle.dataset.image.random_crop
print(paddle.dataset.image.random_crop(np.zeros((8, 9, 3)), 4).shape)
#: paddle.dataset.image.load_image
import zlib
import struct

def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

with open("dot.png", "wb") as out:  # one red pixel
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)))
    out.write(chunk(b"IDAT", zlib.compress(b"\x00\xff\x00\x00")) + chunk(b"IEND", b""))
print(paddle.dataset.image.load_image("dot.png").tolist())  # blue, green, red
#: paddle.compat.round, paddle.compat.floor_division, paddle.compat.to_bytes, paddle.compat.get_exception_message, paddle.compat.long_type
print(paddle.compat.round(2.5), paddle.compat.floor_division(7, 2), paddle.compat.to_bytes("word"))
print(paddle.compat.get_exception_message(ValueError("why")), paddle.compat.long_type is int)
#: paddle.reader.chain, paddle.reader.compose, paddle.reader.firstn, paddle.reader.map_readers, paddle.reader.cache, paddle.reader.ComposeNotAligned
numbers = lambda: iter([1, 2, 3])
print(list(paddle.reader.chain(numbers, numbers)()), list(paddle.reader.compose(numbers, numbers)()))
print(list(paddle.reader.firstn(numbers, 2)()), list(paddle.reader.map_readers(lambda a, b: a * b, numbers, numbers)()))
print(list(paddle.reader.cache(numbers)()))
try:
    list(paddle.reader.compose(numbers, lambda: iter([1]))())
except paddle.reader.ComposeNotAligned:
    print("one is longer")
#: paddle.version.show, paddle.version.mkl
print(paddle.version.mkl())
paddle.version.show()
#: paddle.utils.plot.PlotData
import millstream.utils.plot

losses = paddle.utils.plot.PlotData()
losses.append(0, 0.5)
losses.append(1, 0.25)
print(losses.step, losses.value)
losses.reset()
print(losses.step)
#: paddle.reader.Fake
slow = lambda: iter([[1.0], [2.0]])
print(list(paddle.reader.Fake()(slow, data_num=3)()))
#: paddle.reader.PipeReader
with open("lines.txt", "w") as out:
    out.write("one\ntwo\n")
print(list(paddle.reader.PipeReader("cat lines.txt").get_line()))
#: paddle.complex.elementwise_add, paddle.complex.elementwise_sub, paddle.complex.elementwise_mul, paddle.complex.elementwise_div
with fluid.dygraph.guard():
    x, y = (fluid.dygraph.to_variable(np.array([v], "complex64")) for v in (1 + 2j, 3 - 1j))
    for function in ("elementwise_add", "elementwise_sub", "elementwise_mul", "elementwise_div"):
        print(function, getattr(paddle.complex, function)(x, y).numpy().round(4).tolist())
#: paddle.complex.matmul, paddle.complex.kron, paddle.complex.trace, paddle.complex.sum, paddle.complex.reshape, paddle.complex.transpose
with fluid.dygraph.guard():
    x = fluid.dygraph.to_variable(np.array([[1, 1j], [2, 0]], "complex64"))
    print(paddle.complex.matmul(x, x).numpy().tolist(), paddle.complex.trace(x).numpy().tolist())
    print(paddle.complex.kron(x, x).shape, paddle.complex.sum(x, dim=1).numpy().tolist())
    print(paddle.complex.reshape(x, [4]).numpy().tolist(), paddle.complex.transpose(x, [1, 0]).numpy().tolist())
#: paddle.incubate.hapi.vision.BrightnessTransform, paddle.incubate.hapi.vision.ContrastTransform, paddle.incubate.hapi.vision.SaturationTransform, paddle.incubate.hapi.vision.HueTransform
np.random.seed(0)
image = np.array([[[10, 100, 200]]], "uint8")  # blue, green, red
for name in ("BrightnessTransform", "ContrastTransform", "SaturationTransform", "HueTransform"):
    print(name, getattr(paddle.incubate.hapi.vision, name)(0.4)(image).ravel().tolist())
#: paddle.incubate.hapi.vision.ColorJitter
jitter = paddle.incubate.hapi.vision.ColorJitter(brightness=0.4, hue=0.1)
print(jitter(np.zeros([2, 2, 3], "uint8")).shape, len(jitter.transforms))
#: paddle.incubate.hapi.distributed.DistributedBatchSampler
sampler = paddle.incubate.hapi.distributed.DistributedBatchSampler(range(5), batch_size=2, shuffle=True)
print(list(sampler), len(sampler))
#: paddle.sysconfig.get_include, paddle.sysconfig.get_lib
for find in (paddle.sysconfig.get_include, paddle.sysconfig.get_lib):
    try:
        find()
    except NotImplementedError:
        print("no C++ here")
#: fluid.framework.ComplexVariable
real, imag = fluid.data("real", [None, 2]), fluid.data("imag", [None, 2])
x = fluid.framework.ComplexVariable(real, imag)  # of a Program's variables too
square = paddle.complex.elementwise_mul(x, x)
ones = np.ones((1, 2), "float32")
print(square.dtype, fluid.Executor(fluid.CPUPlace()).run(feed={"real": ones, "imag": 2 * ones}, fetch_list=[square.real, square.imag]))
