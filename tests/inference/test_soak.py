"""Eight threads with predictors of their own for half a minute: no wrong answer, memory flat."""

import os
import threading
import time

import numpy as np
import pytest

import millstream
from millstream.fluid import core
from millstream.inference import engines


def resident():
    with open("/proc/self/statm") as fh:
        return int(fh.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_threads(calls, seconds):
    """Eight threads call until time is up; (calls made, wrong answers, growth of memory after the first fifth)."""
    end, early = time.monotonic() + seconds, time.monotonic() + seconds / 5
    wrong, made, errors = [], [0] * 8, []

    def work(k):
        try:
            while time.monotonic() < end:
                if not calls[k]():
                    wrong.append(k)
                made[k] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    time.sleep(max(0.0, early - time.monotonic()))
    before = resident()
    for t in threads:
        t.join()
    assert not errors, errors
    return made, wrong, resident() - before


@pytest.fixture
def inputs():
    return [np.random.default_rng(k).standard_normal((1 + k % 3, 3, 16, 16)).astype("float32") for k in range(8)]


@pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["native", "onnxruntime", "openvino"])
def test_loaded_models(image_model, inputs, engine, seconds):
    if engine != "native" and engines.why_not(engine) is not None:
        pytest.skip(engines.why_not(engine))
    model = millstream.load(image_model, engine=engine, threads=1)
    want = [model(x) for x in inputs]
    clones = [model.clone() for _ in range(8)]
    calls = [lambda k=k: np.allclose(clones[k](inputs[k]), want[k], atol=1e-6) for k in range(8)]
    made, wrong, grown = run_threads(calls, seconds)
    assert not wrong and sum(made) > 0 and grown < 64 << 20, (made, wrong, grown)


@pytest.mark.slow
def test_predictors(image_model, inputs):
    first = core.create_paddle_predictor(core.AnalysisConfig(image_model))
    want = [first.run([core.PaddleTensor(x)])[0].as_ndarray() for x in inputs]
    clones = [first.clone() for _ in range(8)]

    def call(k):
        held = clones[k].get_input_tensor("x")
        held.copy_from_cpu(inputs[k])
        clones[k].zero_copy_run()
        out = clones[k].get_output_tensor(clones[k].get_output_names()[0]).copy_to_cpu()
        return np.allclose(out, want[k], atol=1e-6)

    made, wrong, grown = run_threads([lambda k=k: call(k) for k in range(8)], 30)
    assert not wrong and sum(made) > 0 and grown < 64 << 20, (made, wrong, grown)
