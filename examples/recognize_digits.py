"""Train a digit classifier as a Fluid program of 2018 would, save it, and classify in a fresh process.

Run it with `millstream run examples/recognize_digits.py`; it is plain Fluid code and knows nothing of millstream,
but for the dataset: `paddle.dataset.digits`, 1,797 real handwritten digits of 8x8 pixels that need no download.
"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np
import paddle
import paddle.fluid as fluid

BATCH, EPOCHS = 64, 60
SHADES = " .:-=+*#%@"


def classifier(image):
    """Two conv-pool blocks with batch normalisation, then softmax over the ten digits."""
    x = fluid.layers.reshape(image, [-1, 1, 8, 8])
    for filters in (48, 96):
        x = fluid.layers.conv2d(x, num_filters=filters, filter_size=3, padding=1, bias_attr=False)
        x = fluid.layers.batch_norm(x, act="relu")
        x = fluid.layers.pool2d(x, pool_size=2, pool_stride=2, pool_type="max")
    x = fluid.layers.fc(x, size=128, act="relu")
    x = fluid.layers.dropout(x, dropout_prob=0.5)
    return fluid.layers.fc(x, size=10, act="softmax")


def shifted(reader, rng):
    """Training digits moved by at most one pixel, so that the net does not learn positions by heart."""

    def read():
        for pixels, label in reader():
            dy, dx = rng.randint(-1, 2, 2)
            picture = np.full((10, 10), -1.0, dtype="float32")
            picture[1 + dy : 9 + dy, 1 + dx : 9 + dx] = pixels.reshape(8, 8)
            yield picture[1:9, 1:9].ravel(), label

    return read


def progress(done, total, text):
    bar = "#" * (30 * done // total)
    sys.stdout.write("\r[%-30s] %3d%%  %s" % (bar, 100 * done // total, text))
    sys.stdout.flush()


def train(folder):
    main, startup = fluid.default_main_program(), fluid.default_startup_program()
    main.random_seed = startup.random_seed = 1
    image = fluid.layers.data(name="image", shape=[64], dtype="float32")
    label = fluid.layers.data(name="label", shape=[1], dtype="int64")
    prediction = classifier(image)
    loss = fluid.layers.mean(fluid.layers.cross_entropy(input=prediction, label=label))
    accuracy = fluid.layers.accuracy(input=prediction, label=label)
    test_program = main.clone(for_test=True)
    rate = fluid.layers.cosine_decay(learning_rate=2e-3, step_each_epoch=23, epochs=EPOCHS)
    fluid.optimizer.Adam(learning_rate=rate).minimize(loss)

    exe = fluid.Executor(fluid.CPUPlace())
    exe.run(startup)
    feeder = fluid.DataFeeder(feed_list=[image, label], place=fluid.CPUPlace())
    digits = shifted(paddle.dataset.digits.train(), np.random.RandomState(1))
    batches = paddle.batch(paddle.reader.shuffle(digits, 2000), BATCH)
    test_batches = paddle.batch(paddle.dataset.digits.test(), BATCH)
    start = time.time()
    for epoch in range(EPOCHS):
        losses = [
            exe.run(main, feed=feeder.feed(batch), fetch_list=[loss])[0].item() for batch in batches()
        ]
        right = count = 0
        for batch in test_batches():
            acc = exe.run(test_program, feed=feeder.feed(batch), fetch_list=[accuracy])[0].item()
            right, count = right + acc * len(batch), count + len(batch)
        progress(epoch + 1, EPOCHS, "loss %.4f  test accuracy %.2f %%" % (np.mean(losses), 100 * right / count))
    print("\n%d epochs in %.1f s" % (EPOCHS, time.time() - start))
    fluid.io.save_inference_model(folder, ["image"], [prediction], exe, main_program=test_program)
    return right / count


def classify(folder):
    exe = fluid.Executor(fluid.CPUPlace())
    program, feeds, fetches = fluid.io.load_inference_model(folder, exe)
    samples = list(paddle.dataset.digits.test()())[:6]
    images = np.stack([pixels for pixels, _ in samples]).astype("float32")
    probabilities = exe.run(program, feed={feeds[0]: images}, fetch_list=fetches)[0]
    pictures = [
        ["".join(SHADES[int((v + 1) / 2 * 9.99)] * 2 for v in row) for row in pixels.reshape(8, 8)] for pixels in images
    ]
    for rows in zip(*pictures):
        print("   ".join(rows))
    answers = [
        "%d (%.0f %%), truth %d" % (p.argmax(), 100 * p.max(), label) for p, (_, label) in zip(probabilities, samples)
    ]
    print("   ".join("%-16s" % a for a in answers))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        classify(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as home:
            model = os.path.join(home, "digits")
            reached = train(model)
            print("Saved to a Fluid inference model; a fresh process loads it:")
            sys.stdout.flush()
            command = [sys.executable, "-m", "millstream.cli", "run", os.path.abspath(__file__), model]
            subprocess.run(command, check=True)
            if reached < 0.98:
                sys.exit("test accuracy %.2f %% is below 98 %%" % (100 * reached))
