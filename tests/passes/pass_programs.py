"""Programs that run with passes and without."""

import numpy as np

import millstream.fluid as fluid
from millstream.passes import pipelines


def build(make):
    """(main, startup, what `make` returned) with names that repeat."""
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 5
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        found = make()
    return main, startup, found


def run(main, startup, feed, fetches, steps=1, passes=pipelines.PLAN):
    """(values of the last run, persistable values after it, the last Plan)."""
    exe, scope = fluid.Executor(), fluid.Scope()
    exe.passes = passes
    with fluid.scope_guard(scope):
        exe.run(startup)
        for _ in range(steps):
            values = exe.run(main, feed=feed, fetch_list=fetches, return_numpy=False)
    kept = {
        v.name: np.asarray(scope.find_var(v.name).get_tensor())
        for v in main.list_vars()
        if v.persistable and scope.find_var(v.name) is not None
    }
    return [np.asarray(v) for v in values], kept, list(exe._plans.values())[-1]


def types(plan):
    """Operator types of the global Block as the Plan runs it."""
    return [op.type for op in plan.work.block.ops]


def compare(make, feed, steps=1, rtol=2e-6, atol=1e-6):
    """Run with passes and without; both must agree, and the user's Program stays; returns the Plan with passes."""
    main, startup, fetches = build(make)
    before, version = main.to_string(), main._version
    plain, plain_kept, _ = run(main, startup, feed, fetches, steps, ())
    quick, quick_kept, plan = run(main, startup, feed, fetches, steps)
    assert main.to_string() == before and main._version == version
    for a, b in zip(plain, quick):
        np.testing.assert_allclose(b, a, rtol, atol)
    assert plain_kept.keys() == quick_kept.keys()
    for name in plain_kept:
        np.testing.assert_allclose(quick_kept[name], plain_kept[name], rtol, atol, err_msg=name)
    return plan


def compare_largest(make, feed, steps=1, rtol=1e-3):
    """As :func:`compare`, each value up to `rtol` of the largest of its variable."""
    main, startup, fetches = build(make)
    plain, plain_kept, _ = run(main, startup, feed, fetches, steps, ())
    quick, quick_kept, plan = run(main, startup, feed, fetches, steps)
    assert plain_kept.keys() == quick_kept.keys()
    pairs = [*zip(plain, quick), *((plain_kept[name], quick_kept[name]) for name in plain_kept)]
    for expected, got in pairs:
        np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max() + 2e-6)
    return plan
