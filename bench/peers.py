"""The peers: which interpreter runs each, and one running process of each."""

import json
import os
import statistics
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
# Peer -> the variable that names its interpreter; None: this one.
INTERPRETERS = {
    "millstream": None,
    "millstream-derivative": None,
    "millstream-captured": None,
    "millstream-bfloat16": None,
    "fluid": "MILLSTREAM_ORACLE_PYTHON",
    "paddle3": "MILLSTREAM_PADDLE3_PYTHON",
    "torch": None,
    "torch-compiled": None,
    "jax": "MILLSTREAM_JAX_PYTHON",
}
TITLES = {
    "millstream": "millstream",
    "millstream-derivative": "millstream, derivative",
    "millstream-captured": "millstream, captured",
    "millstream-bfloat16": "millstream, bfloat16",
    "fluid": "PaddlePaddle 1.8.5",
    "paddle3": "Paddle 3",
    "torch": "torch eager",
    "torch-compiled": "torch.compile",
    "jax": "JAX",
}
PATIENCE = 900  # seconds to a peer's first figures: torch's compiler unrolls recurrences, which may take longer
WORKLOADS = sorted(f[:-3] for f in os.listdir(os.path.join(HERE, "workloads")) if f.endswith(".py") and f[0] != "_")


class LeftOut(Exception):
    """A peer that does not take part, and why."""


def interpreter(name):
    """Path of the Python that runs the peer; LeftOut says what is missing."""
    variable = INTERPRETERS[name]
    if variable is None:
        return sys.executable
    path = os.environ.get(variable)
    if not path:
        raise LeftOut(f"not installed: {variable} names no interpreter")
    if not os.access(path, os.X_OK):
        raise LeftOut(f"{variable}={path} can't be executed")
    return path


def installed(name):
    try:
        return bool(interpreter(name))
    except LeftOut:
        return False


def environment(threads):
    # OPENBLAS_CORETYPE can force slow kernels on numpy; a benchmark takes the library's own choice.
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OMP_NUM_THREADS", "GOMP_SPINCOUNT")}
    env.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS="1", CPU_NUM="1", GLOG_minloglevel="3")
    return env


def write_parameters(workload, path, threads):
    """Run millstream's startup Program and keep its values in `path`; RuntimeError with what it printed when it fails."""
    command = [sys.executable, os.path.join(HERE, "worker.py"), workload, "millstream-start", path]
    done = subprocess.run(command, env=environment(threads), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{workload}: the startup Program failed\n{done.stderr[-2000:]}")


class Peer:
    """A worker process.

    Attributes:
        losses: of the first steps, from the common parameters.
        first_s: seconds of the first step (lowering, compilation).
        medians, cpu: milliseconds a step on the clock (a median) and of processor time (a mean), one for each round.
    """

    def __init__(self, workload, name, path, threads, log):
        self.workload, self.name, self.log = workload, name, log
        command = [interpreter(name), os.path.join(HERE, "worker.py"), workload, name, path]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(threads)
        )
        self.medians, self.cpu = [], []
        self.peak = self.base = None
        answer = self.first_answer()
        if "left_out" in answer:
            self.close()
            raise LeftOut(answer["left_out"])
        self.losses, self.first_s, self.ms = answer["losses"], answer["first_s"], answer["ms"]

    def read(self):
        for line in iter(self.process.stdout.readline, ""):
            if line.startswith("{"):
                return json.loads(line)
        status = self.process.wait()
        self.log.seek(0)
        tail = self.log.read().strip().splitlines()[-4:]
        raise RuntimeError(f"ended with status {status}: " + " | ".join(tail))

    def first_answer(self):
        late = threading.Event()

        def stop():
            late.set()
            self.process.kill()

        timer = threading.Timer(PATIENCE, stop)
        timer.start()
        try:
            return self.read()
        except RuntimeError:
            if not late.is_set():
                raise
            self.close()
            raise LeftOut(f"it had taken no step after {PATIENCE} s") from None
        finally:
            timer.cancel()

    def round(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.read()
        self.medians.append(statistics.median(answer["ms"]))
        self.cpu.append(answer["cpu_ms"])
        self.base, self.peak = answer["base_mib"], answer["peak_mib"]

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
