"""What every test session shares."""

import os
import random
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# The same examples at every run, so that a failure is a change of ours; `--hypothesis-profile=explore` draws new ones.
hypothesis_settings.register_profile(
    "steady",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.register_profile("explore", hypothesis_settings.get_profile("steady"), derandomize=False)
hypothesis_settings.load_profile("steady")


def pytest_configure(config):
    # Small tensors: threads inside one operator only get in the way of the test processes beside this one.
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    # Tests start dozens of processes that import the package: compile its files once.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Unseeded draws are the same at every run of a test, in any order; MILLSTREAM_TEST_SEED=n tries other ones."""
    import torch

    seed = zlib.crc32(f"{item.nodeid} {os.environ.get('MILLSTREAM_TEST_SEED', '0')}".encode())
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture(autouse=True)
def _fresh_programs():
    """Every test starts with empty default Programs, a fresh global Scope and fresh names, outside eager mode."""
    from millstream.ir import mode, names
    from millstream.ir.program import Program, program_guard
    from millstream.runtime.scope import Scope, scope_guard

    with names.guard(), program_guard(Program(), Program()), scope_guard(Scope()):
        yield
    mode.switch_tracer(None)


def pytest_terminal_summary(terminalreporter):
    from millstream.ops import REGISTRY

    terminalreporter.section("complexity meter: operators that override what is otherwise derived")
    terminalreporter.write_line("  ".join(f"{what}: {count}" for what, count in REGISTRY.meter().items()))
