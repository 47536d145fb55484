"""One peer of one workload in a process of its own: warms up, then times steps whenever the runner asks.

    python bench/worker.py WORKLOAD PEER PARAMETERS     PEER: millstream | millstream-derivative | fluid | torch | …

PARAMETERS is a file of numpy's .npz: with PEER "millstream-start" it is written (the startup Program's values, in the
order they were made), else every peer starts from it. Then a number of steps a line is read from stdin, and a JSON line
of milliseconds a step and the last loss written. Runs on Python 3.7 too.
"""

import importlib
import json
import os
import resource
import sys
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = {"fluid": "paddle.fluid"}
MODULES.update(
    dict.fromkeys(
        ("millstream", "millstream-derivative", "millstream-captured", "millstream-bfloat16"), "millstream.fluid"
    )
)
FIRST_STEPS = 3
MOST_TURNS = 80  # steps in which a compiler may still be trying what is faster
EXIT_LEFT_OUT = 3


class LeftOut(Exception):
    """The peer can't run this workload, and why."""


def train_in_bfloat16(fluid):
    """The optimizers of workloads decorate themselves."""
    decorate = fluid.contrib.mixed_precision.decorate
    for name in ("SGD", "Momentum", "Adam"):
        plain = getattr(fluid.optimizer, name)
        made = lambda *args, plain=plain, **more: decorate(plain(*args, **more), dtype="bfloat16")  # noqa: E731
        setattr(fluid.optimizer, name, made)


class FluidRun:
    """A workload built through Fluid's API, with its own Executor and Scope."""

    def __init__(self, module, workload):
        fluid = importlib.import_module(module)
        self.fluid, self.main, self.startup = fluid, fluid.Program(), fluid.Program()
        self.main.random_seed = self.startup.random_seed = 7
        self.programs = [self.main]
        self.turn = None
        with fluid.unique_name.guard(), fluid.program_guard(self.main, self.startup):
            if hasattr(workload, "fluid_turn"):
                self.programs, self.turn = workload.fluid_turn(fluid)
            else:
                self.feed, self.loss = workload.fluid_model(fluid)
        self.exe, self.scope = fluid.Executor(fluid.CPUPlace()), fluid.Scope()
        with fluid.scope_guard(self.scope):
            self.exe.run(self.startup)

    def parameters(self):
        """{name: array}, in the order in which the layers made them."""
        names = {}
        for program in self.programs:
            names.update((p.name, None) for p in program.all_parameters())
        return {name: np.array(self.scope.find_var(name).get_tensor()) for name in names}

    def start_from(self, parameters):
        for name, value in parameters.items():
            self.scope.find_var(name).get_tensor().set(value, self.fluid.CPUPlace())

    def capture(self):
        """From now on run the whole step as compiled code."""
        if self.turn is not None:
            raise LeftOut("it runs several Programs a step")
        strategy = self.fluid.BuildStrategy()
        strategy.enable_compiler = True
        self.main = self.fluid.CompiledProgram(self.main, strategy)

    def settled(self):
        """Whether the next steps run as all later ones will: nothing is compiled any more, nor taking turns."""
        explain = getattr(self.main, "explain", None)
        return explain is None or "still being tried" not in explain()

    def step(self):
        with self.fluid.scope_guard(self.scope):
            if self.turn is not None:
                return self.turn(self.exe)
            return float(self.exe.run(self.main, feed=self.feed, fetch_list=[self.loss])[0].reshape(-1)[0])


def load(path):
    """{name: array} in order; names stand behind a number in the file."""
    with np.load(path) as stored:
        return {key.split(":", 1)[1]: stored[key] for key in sorted(stored.files)}


def save(path, parameters):
    np.savez(path, **{f"{i:06d}:{name}": value for i, (name, value) in enumerate(parameters.items())})


def make_step(name, peer, path):
    """(a function of no arguments that runs one step, one that tells whether its steps are what they will be)."""
    workload = importlib.import_module("workloads." + name)
    if peer == "millstream-start":
        save(path, FluidRun(MODULES["millstream"], workload).parameters())
        sys.exit(0)
    parameters = load(path)
    if peer in MODULES:
        if peer == "millstream-bfloat16":
            train_in_bfloat16(importlib.import_module(MODULES[peer]))
        run = FluidRun(MODULES[peer], workload)
        run.start_from(parameters)
        if peer == "millstream-captured":
            run.capture()
        return run.step, run.settled
    reasons = getattr(workload, "LEFT_OUT", {})
    maker = getattr(workload, peer.split("-")[0] + "_step", None)
    if peer in reasons or maker is None:
        raise LeftOut(reasons.get(peer, "this workload has no form for it"))
    return maker(parameters, compiled=True) if peer == "torch-compiled" else maker(parameters), lambda: True


def imports(peer):
    """Import the framework; the memory that stands after it is not the workload's."""
    module = MODULES.get(peer, {"torch": "torch", "jax": "jax.numpy", "paddle3": "paddle"}.get(peer.split("-")[0]))
    importlib.import_module(module)


def memory():
    """(resident now, highest so far) in MiB."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[1]) * resource.getpagesize()
    return now // 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def say(answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main():
    # Workloads are imported by that name from here; millstream from the folder above.
    sys.path[:1] = [HERE, os.path.dirname(HERE)]
    name, peer, path = sys.argv[1:4]
    if peer == "millstream-derivative":
        os.environ["FLAGS_lstm_state_gradient"] = "1"  # noqa: SIM112
    # Some frameworks take their threads from no variable; a process that has fewer cores can't use more.
    cores = sorted(os.sched_getaffinity(0))[: int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))]
    os.sched_setaffinity(0, cores)
    try:
        imports(peer.replace("-start", ""))
        base = memory()[0]
        step, settled = make_step(name, peer, path)
    except LeftOut as reason:
        say({"left_out": str(reason)})
        sys.exit(EXIT_LEFT_OUT)
    start = time.perf_counter()
    losses = [step()]
    first_s = time.perf_counter() - start
    losses += [step() for _ in range(FIRST_STEPS - 1)]
    for _ in range(MOST_TURNS):
        if settled():
            break
        step()
    start = time.perf_counter()
    step()
    say({"ready": peer, "losses": losses, "first_s": first_s, "ms": 1000 * (time.perf_counter() - start)})
    for line in iter(sys.stdin.readline, ""):
        times, cpu = [], time.process_time()
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step()
            times.append(1000 * (time.perf_counter() - start))
        cpu = 1000 * (time.process_time() - cpu) / len(times)
        say({"ms": times, "cpu_ms": cpu, "loss": loss, "base_mib": base, "peak_mib": memory()[1]})


if __name__ == "__main__":
    main()
