"""One peer of one workload in a process of its own: warms up, then times steps whenever the runner asks.

    python bench/worker.py WORKLOAD PEER        PEER: millstream | fluid | torch | torch-compiled

Reads a number of steps a line from stdin, writes one JSON line of milliseconds a step and the last loss.
Runs on Python 3.7 too.
"""

import importlib
import json
import os
import resource
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def fluid_step(module, workload):
    """One training step through Fluid's API: returns a function that gives the loss."""
    fluid = importlib.import_module(module)
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 7
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        feed, loss = workload.fluid_model(fluid)
    exe = fluid.Executor(fluid.CPUPlace())
    scope = fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)

    def step():
        with fluid.scope_guard(scope):
            return float(exe.run(main, feed=feed, fetch_list=[loss])[0].reshape(-1)[0])

    return step


def make_step(name, peer):
    workload = importlib.import_module("workloads." + name)
    if peer == "millstream":
        return fluid_step("millstream.fluid", workload)
    if peer == "fluid":
        return fluid_step("paddle.fluid", workload)
    if peer == "torch":
        return workload.torch_step()
    if peer == "torch-compiled":
        return workload.torch_step(compiled=True)
    raise SystemExit("unknown peer " + peer)


def main():
    sys.path.insert(0, HERE)
    name, peer = sys.argv[1:3]
    step = make_step(name, peer)
    for _ in range(3):
        loss = step()
    print(json.dumps({"ready": peer}))
    sys.stdout.flush()
    for line in iter(sys.stdin.readline, ""):
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step()
            times.append(1000 * (time.perf_counter() - start))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"ms": times, "loss": loss, "peak_mib": peak}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
