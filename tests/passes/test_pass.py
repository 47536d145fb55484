"""The contract of passes: registry, rules, runner, verification."""

import pytest
from pass_programs import build

import millstream.fluid as fluid
from millstream.errors import InvalidProgramError
from millstream.ir.operator import Operator
from millstream.ir.verify import problems, verify
from millstream.passes import Rule, _pass, find, program_pass, register, run, work_on


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(_pass, "_PASSES", dict(_pass._PASSES))


def exponential():
    return fluid.layers.relu(fluid.layers.exp(fluid.data("x", [None, 3])))


def test_a_rule_replaces_and_leaves_the_users_program():
    build_one = Rule(
        "softer", "exp Out:X relu", lambda found: None,
        lambda found: found.make("exp", found.ops[0].inputs, found.ops[1].outputs),
    )  # fmt: skip
    register("softer", build_one)
    main, _, out = build(exponential)
    work = run(work_on(main, keep=[out.name]), ["softer"], check=True)
    assert [op.type for op in work.block.ops] == ["exp"] and [op.type for op in main.global_block().ops] == ["exp", "relu"]
    assert work.explain() == "softer: 1 changes"


def test_a_rule_says_why_it_refuses():
    register("never", Rule("never", "exp Out:X relu", lambda found: "it is Sunday", lambda found: found.ops[0]))
    main, _, _ = build(exponential)
    assert "never refused exp (exp_0.tmp_0): it is Sunday" in run(work_on(main), ["never"]).explain()


def test_names():
    with pytest.raises(InvalidProgramError, match="there is no pass 'fuse_everything'"):
        find("fuse_everything")
    with pytest.raises(ValueError, match="registered twice"):
        register("one", lambda work: 0) and register("one", lambda work: 0)


def test_an_installed_package_brings_passes(monkeypatch):
    class Point:
        def load(self):
            return lambda work: 7

    monkeypatch.setattr(_pass.metadata, "entry_points", lambda group, name: [Point()] if name == "theirs" else [])
    assert run(work_on(fluid.Program()), ["theirs"]).done == [("theirs", 7)]


def test_a_pass_that_breaks_the_program_is_named():
    @program_pass("harmless")
    def harmless(work):
        return 0

    @program_pass("breaking")
    def breaking(work):
        work.block.ops.append(Operator(work.block, "relu", {"X": ["nobody"]}, {"Out": ["nothing"]}))
        return 1

    @program_pass("raising")
    def raising(work):
        raise KeyError("x")

    main, _, _ = build(exponential)
    with pytest.raises(InvalidProgramError, match=r"after pass 'breaking' \(passes that had run: harmless\)") as error:
        run(work_on(main), ["harmless", "breaking"], check=True)
    assert "slot X reads 'nobody', which no block around it declares" in str(error.value)
    with pytest.raises(KeyError) as raised:
        run(work_on(main), ["harmless", "raising"])
    assert raised.value.__notes__ == ["in pass 'raising'; passes that had run: harmless"]


def test_executors_run_the_passes_they_are_given():
    calls = []
    register("counted", lambda work: calls.append(work) or 0)
    main, _, out = build(exponential)
    exe = fluid.Executor()
    exe.passes = ("counted",)
    for _ in range(3):
        exe.run(main, feed={"x": [[1.0, 2.0, 3.0]]}, fetch_list=[out])
    assert len(calls) == 1


# ---- verify ------------------------------------------------------------------------------------------
def test_programs_of_layers_are_valid():
    def make():
        x = fluid.data("x", [None, 3])
        i, n = fluid.layers.fill_constant([1], "int64", 0), fluid.layers.fill_constant([1], "int64", 3)
        fluid.layers.while_loop(fluid.layers.less_than, lambda i, n: [fluid.layers.increment(i), n], [i, n])
        loss = fluid.layers.mean(fluid.layers.fc(x, 2))
        fluid.optimizer.Adam().minimize(loss)

    main, startup, _ = build(make)
    verify(main), verify(startup)


def test_what_verify_finds():
    main, _, out = build(exponential)
    block = main.global_block()
    block.ops.reverse()
    assert problems(main) == ["block 0, operator relu: reads 'exp_0.tmp_0' before the operator that writes it"]
    assert problems(main, ["exp_0.tmp_0"]) == []
    block.ops[:] = [Operator(block, "relu", {"Y": ["x"]}, {"Out": [out.name]}), Operator(block, "no_such", {}, {})]
    first, second = problems(main)
    assert "no input slot 'Y'" in first and "not in the operator library" in second
    stray = fluid.Program()._create_block()
    block.ops[:] = [Operator(block, "while", {}, {}, {"sub_block": stray})]
    assert "it holds a block 1 that is not the Program's" in problems(main)[0]
    main._create_block().parent_idx = 5
    assert problems(main) == ["block 1 has block 5 around it, of 2"]
