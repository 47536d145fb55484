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
