"""A saved model on a predictor of Fluid's API, in a process of its own; runs on Python 3.7 too.

    python bench/inference_fluid.py MODULE FOLDER REQUESTS.npz THREADS CLOCK

MODULE is paddle.fluid or millstream.fluid, FOLDER holds __model__ and __params__, CLOCK is a function of the module time.
REQUESTS has "k:name" arrays and "k:name:lod" offsets for request k. Inputs and results go through ZeroCopyTensor. Every line
on stdin is a number of passes over the requests; a JSON line answers with the milliseconds of one request in each pass.
The line "results" writes those of every request into the file beside REQUESTS, RESULTS.npz.
"""

import importlib
import json
import os
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def stored(feeds, path):
    """Write requests: dicts of arrays; a sequence's offsets are named as ONNX inputs are, "<name>.lod0"."""
    arrays = {}
    for k, feed in enumerate(feeds):
        arrays.update({f"{k}:{name}": array for name, array in feed.items()})
    np.savez(path, **arrays)


def requests(path):
    """[{name: (array, offsets or None)}]"""
    found = {}
    with np.load(path) as file:
        for key in file.files:
            k, name = key.split(":", 1)
            found.setdefault(int(k), {})[name] = file[key]
    return [
        {name: (array, feed.get(name + ".lod0")) for name, array in feed.items() if ".lod" not in name}
        for _, feed in sorted(found.items())
    ]


WITHOUT = (), ("fc_gru_fuse_pass", "fc_lstm_fuse_pass", "embedding_fc_lstm_fuse_pass"), None
"""Passes to leave out (None: all). 1.8.5 can't run what some of them make of jieba's model, which has fluid.embedding."""


def predictor(core, folder, threads, without=()):
    config = core.AnalysisConfig(os.path.join(folder, "__model__"), os.path.join(folder, "__params__"))
    config.disable_gpu()
    config.switch_use_feed_fetch_ops(False)
    config.switch_ir_optim(without is not None)
    for name in without or ():
        config.delete_pass(name)
    config.set_cpu_math_library_num_threads(threads)
    if hasattr(config, "disable_glog_info"):
        config.disable_glog_info()
    return core.create_paddle_predictor(config)


def fitted(core, folder, threads, feeds):
    """(predictor, results, passes left out): with as many passes as the model runs with."""
    for without in WITHOUT:
        call = Caller(predictor(core, folder, threads, without))
        try:
            return call, [call(feed) for feed in feeds], without
        except Exception as error:
            if without is None:
                raise
            sys.stderr.write(f"with passes except {without}: {str(error)[-400:]}\n")


class Caller:
    """A request to its results, by zero copy."""

    def __init__(self, made):
        self.run = made.zero_copy_run
        self.inputs = {name: made.get_input_tensor(name) for name in made.get_input_names()}
        self.outputs = [made.get_output_tensor(name) for name in made.get_output_names()]

    def __call__(self, feed):
        for name, (array, offsets) in feed.items():
            tensor = self.inputs[name]
            tensor.copy_from_cpu(array)
            if offsets is not None:
                tensor.set_lod([offsets])
        self.run()
        return [tensor.copy_to_cpu() for tensor in self.outputs]


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main():
    module, folder, path, threads, clock = sys.argv[1:6]
    sys.path[:1] = [os.path.dirname(HERE)]
    # Some libraries take their threads from no variable; a process that has fewer cores can't use more.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(threads)])
    feeds = requests(path)
    for feed in feeds:  # offsets as a user has them: lists
        for name, (array, offsets) in feed.items():
            feed[name] = (array, None if offsets is None else offsets.tolist())
    call, results, without = fitted(importlib.import_module(module).core, folder, int(threads), feeds)
    say({"ready": module, "without": without})
    now = getattr(time, clock)
    for line in iter(sys.stdin.readline, ""):
        if line.strip() == "results":
            np.savez(
                os.path.join(os.path.dirname(path), "RESULTS.npz"),
                **{f"{k:06d}:{i}": y for k, ys in enumerate(results) for i, y in enumerate(ys)}
            )
            say({"results": len(results)})
            continue
        times = []
        for _ in range(int(line)):
            start = now()
            for feed in feeds:
                call(feed)
            times.append(1000 * (now() - start) / len(feeds))
        say({"ms": times})


if __name__ == "__main__":
    main()
