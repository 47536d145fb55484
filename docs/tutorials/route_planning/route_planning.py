"""A route planner's RNN, ten and more times faster by a fused operator and a pass that live in a package of their own.

    python route_planning.py            measure, and fail below ten times
    python route_planning.py --quick    small sizes: results and firing only, no demand on speed
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import numpy as np

import millstream
import millstream.fluid as fluid
from millstream import passes
from millstream.fluid.core import AnalysisConfig, create_paddle_predictor
from millstream.passes import pipelines

HERE = os.path.dirname(os.path.abspath(__file__))
layers = fluid.layers


def network(steps, links, width, features):
    """A GRU over the roads of a route. At each step it looks at the links of the road network through attention."""
    route = fluid.data("route", [steps, None, features])
    road = fluid.data("links", [None, links, width])
    start = fluid.data("start", [None, width])

    def parameter(name, shape):
        return layers.create_parameter(shape, "float32", name=name)

    rnn = layers.StaticRNN()
    with rnn.step():
        x, h = rnn.step_input(route), rnn.memory(init=start)
        query = layers.unsqueeze(layers.mul(h, parameter("query", [width, width])), [2])
        share = layers.softmax(layers.squeeze(layers.matmul(road, query), [2]))
        context = layers.squeeze(layers.matmul(layers.unsqueeze(share, [1]), road), [1])
        joint = layers.concat([x, context], axis=1)

        def gate(name, hidden):
            product = layers.mul(joint, parameter("w_" + name, [features + width, width]))
            product = layers.elementwise_add(product, layers.mul(hidden, parameter("u_" + name, [width, width])))
            return layers.elementwise_add(product, parameter("b_" + name, [width]))

        update, reset = layers.sigmoid(gate("update", h)), layers.sigmoid(gate("reset", h))
        candidate = layers.tanh(gate("candidate", reset * h))
        new = update * h + (1.0 - update) * candidate
        rnn.update_memory(h, new)
        rnn.step_output(new)
    return layers.reduce_sum(rnn(), dim=2)  # a score for each road


def save_model(folder, sizes):
    """Save the network with random parameters as a Fluid inference model."""
    main, startup = fluid.Program(), fluid.Program()
    startup.random_seed = 1
    with fluid.scope_guard(fluid.Scope()), fluid.program_guard(main, startup):
        score = network(**sizes)
        exe = fluid.Executor()
        exe.run(startup)
        fluid.io.save_inference_model(folder, ["route", "links", "start"], [score], exe, main_program=main)


def request(rng, batch, steps, links, width, features):
    return [
        rng.uniform(-1, 1, shape).astype("float32")
        for shape in ((steps, batch, features), (batch, links, width), (batch, width))
    ]


def install(folder):
    """Make the plug-in known as ``pip install`` does, in a folder that goes away with this script."""
    if any(point.name == "fuse_road_gru" for point in metadata.entry_points(group="millstream.passes")):
        return "it is installed"
    source = shutil.copytree(os.path.join(HERE, "road_gru"), os.path.join(folder, "source"))
    target = os.path.join(folder, "installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, source], check=True)
    sys.path.insert(0, target)
    return "installed for this run"


def optimised(folder):
    """What the passes make of the model: the predictor runs the same ones."""
    with fluid.scope_guard(fluid.Scope()):
        program, feeds, fetches = fluid.io.load_inference_model(folder, fluid.Executor())
        scope = fluid.global_scope()
        names = ("fuse_road_gru", *pipelines.INFER)
        values = {v.name: scope.find_var(v.name).load()[0] for v in program.list_vars() if scope.find_var(v.name)}
        return passes.optimize(program, feeds, [v.name for v in fetches], values.get, names)


def predictor(folder, *first):
    """A predictor whose passes begin with `first`."""
    config = AnalysisConfig(folder)
    for name in reversed(first):
        config.pass_builder().insert_pass(0, name)
    config.switch_use_feed_fetch_ops(False)
    config.set_cpu_math_library_num_threads(1)
    return create_paddle_predictor(config)


def answer(planner, values):
    for name, value in zip(planner.get_input_names(), values):
        planner.get_input_tensor(name).copy_from_cpu(value)
    planner.zero_copy_run()
    return planner.get_output_tensor(planner.get_output_names()[0]).copy_to_cpu()


def milliseconds(planners, values, rounds):
    """Median time of a request, the planners by turns."""
    times = [[] for _ in planners]
    for _ in range(rounds):
        for planner, found in zip(planners, times):
            begin = time.perf_counter()
            answer(planner, values)
            found.append((time.perf_counter() - begin) * 1e3)
    return [statistics.median(found) for found in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, no demand on speed")
    quick = parser.parse_args().quick
    sizes = {"steps": 5, "links": 3, "width": 8, "features": 4} if quick else {
        "steps": 36, "links": 12, "width": 64, "features": 16}  # fmt: skip
    rng = np.random.RandomState(0)
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        save_model(model, sizes)
        values = request(rng, 1, **sizes)

        print("1. Where does the time go?\n")
        watched = millstream.load(model, profile=True, threads=1)
        for _ in range(3 if quick else 50):
            watched.run(*values)
        print(watched.profile())
        print("All of it goes into the loop and its small operators.\n")

        print(f"2. The plug-in road_gru: {install(folder)}.\n")
        plain, fused = predictor(model), predictor(model, "fuse_road_gru")
        answer(plain, values), answer(fused, values)  # the first request compiles
        work = optimised(model)
        print("fuse_road_gru made", work.counts()["fuse_road_gru"], "change. The Program after all passes:")
        print(", ".join(op.type for op in work.block.ops), "\n")

        worst = 0.0
        for batch in (1, 3):
            some = request(rng, batch, **sizes)
            want, got = answer(plain, some), answer(fused, some)
            worst = max(worst, float(np.abs(want - got).max() / np.abs(want).max()))
        print(f"Largest difference of a score, relative to the largest score: {worst:.1e}\n")
        assert worst < 1e-4, worst

        print("3. Latency of one request, batch 1, one thread (medians, by turns)\n")
        before, after = milliseconds([plain, fused], values, 5 if quick else 300)
        print(f"before   {before:8.3f} ms\nafter    {after:8.3f} ms\nfaster   {before / after:8.1f} times")
        assert quick or before / after >= 10, "less than ten times faster"


if __name__ == "__main__":
    main()
