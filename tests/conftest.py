"""What every test session shares."""

import os

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
