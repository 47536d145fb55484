"""What deep Programs cost apart from arithmetic: building, the first run's lowering, and each step's overhead.

    python -m bench.build_time [--sizes 1000,2500,5000,10000] [--steps 5]

A Program of N forward operators on tiny tensors, its backward pass and Adam. Bars: building 1,000 operators takes under
2 s, their first run under 1 s, and the step's time per operator at the largest size is at most 1.5 times that of the
smallest (linear growth). Processor time of one thread. The exit status is 1 when a bar is missed.
"""

import argparse
import statistics
import sys
import time

BUILD_S, FIRST_RUN_S, GROWTH = 2.0, 1.0, 1.5


def build(fluid, operators):
    """A chain of about `operators` forward operators: fc (3 operators) and scale in turns."""
    x = fluid.layers.data("x", [8])
    while len(fluid.default_main_program().global_block().ops) < operators - 1:
        x = fluid.layers.scale(fluid.layers.fc(x, 8, act="tanh"), 1.01)
    loss = fluid.layers.mean(x)
    fluid.optimizer.Adam(1e-3).minimize(loss)
    return loss


def measure(operators, steps):
    """{"build_s", "first_run_s", "step_ms", "operators" (all of them)}."""
    import numpy as np

    import millstream.fluid as fluid

    main, startup = fluid.Program(), fluid.Program()
    start = time.process_time()
    with fluid.program_guard(main, startup), fluid.unique_name.guard():
        loss = build(fluid, operators)
    built = time.process_time() - start
    exe, feed = fluid.Executor(fluid.CPUPlace()), {"x": np.ones((4, 8), "float32")}
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        start = time.process_time()
        exe.run(main, feed=feed, fetch_list=[loss])
        first = time.process_time() - start
        times = []
        for _ in range(steps):
            start = time.process_time()
            exe.run(main, feed=feed, fetch_list=[loss])
            times.append(1000 * (time.process_time() - start))
    return {
        "forward": operators,
        "operators": len(main.global_block().ops),
        "build_s": built,
        "first_run_s": first,
        "step_ms": statistics.median(times),
    }


def missed(rows):
    """What misses a bar, as sentences."""
    found = []
    for row in rows:
        if row["forward"] <= 1000:
            for what, limit in (("build_s", BUILD_S), ("first_run_s", FIRST_RUN_S)):
                if row[what] >= limit:
                    found.append(f"{row['forward']} operators: {what} is {row[what]:.2f}, allowed {limit}")
    each = [row["step_ms"] / row["operators"] for row in rows]
    if len(rows) > 1 and each[-1] > GROWTH * each[0]:
        found.append(f"a step costs {1000 * each[-1]:.1f} us an operator at the largest size, {1000 * each[0]:.1f} before")
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.build_time", description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="1000,2500,5000,10000", help="forward operators (%(default)s)")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    measure(50, 1)  # imports and first calls
    rows = []
    print("| forward operators | all | build s | first run s | step ms | us an operator |\n" + "| --- " * 6 + "|")
    for size in map(int, options.sizes.split(",")):
        row = measure(size, options.steps)
        rows.append(row)
        times = [row["build_s"], row["first_run_s"], row["step_ms"], 1000 * row["step_ms"] / row["operators"]]
        print(f"| {size} | {row['operators']} | " + " | ".join(f"{t:.2f}" for t in times) + " |", flush=True)
    found = missed(rows)
    print("\n".join(found) if found else "all bars held")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
