"""Whole-step capture: what is compiled gives what the kernels give, and what is not says why."""

import shutil
import time

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream import config
from millstream.runtime import capture, segment, turns

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs a C++ compiler")
RNG = np.random.RandomState(0)


@pytest.fixture(autouse=True)
def answers(tmp_path, monkeypatch):
    """What was measured in other tests is not known here; compiled code stays where it is."""
    config.keep_compiled_code()
    monkeypatch.setenv("MILLSTREAM_CACHE_DIR", str(tmp_path))


def program(build, optimizer):
    main, startup = fluid.Program(), fluid.Program()
    main.random_seed = startup.random_seed = 11
    with fluid.unique_name.guard(), fluid.program_guard(main, startup):
        loss = build()
        optimizer().minimize(loss)
    return main, startup, loss


def train(build, optimizer, feeds, capture):
    """(losses of the steps, parameters after them, explanation)."""
    main, startup, loss = program(build, optimizer)
    strategy = fluid.BuildStrategy()
    strategy.enable_compiler = capture
    compiled = fluid.CompiledProgram(main, strategy)
    exe, scope = fluid.Executor(), fluid.Scope()
    with fluid.scope_guard(scope):
        exe.run(startup)
        losses = [exe.run(compiled, feed=feed, fetch_list=[loss])[0].item() for feed in feeds]
        values = {p.name: np.array(scope.find_var(p.name).get_tensor()) for p in main.all_parameters()}
    return losses, values, compiled.explain()


def both(build, optimizer, feeds):
    losses, values, text = train(build, optimizer, feeds, True)
    wanted, parameters, _ = train(build, optimizer, feeds, False)
    np.testing.assert_allclose(losses, wanted, rtol=1e-4, atol=1e-6)
    for name, value in parameters.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    return text


def regression():
    x = fluid.data("x", [None, 6])
    y = fluid.data("y", [None, 1])
    hidden = fluid.layers.dropout(fluid.layers.fc(x, 8, act="tanh"), 0.3)
    return fluid.layers.mean(fluid.layers.square_error_cost(fluid.layers.fc(hidden, 1), y))


def batches(count, size=4):
    return [{"x": RNG.randn(size, 6).astype("float32"), "y": RNG.randn(size, 1).astype("float32")} for _ in range(count)]


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("optimizer", [lambda: fluid.optimizer.SGD(0.1), lambda: fluid.optimizer.Momentum(0.1, 0.9),
                                       lambda: fluid.optimizer.Adam(0.01)], ids=["sgd", "momentum", "adam"])  # fmt: skip
def test_forward_backward_and_update_are_one_segment(optimizer):
    """Dropout too: its draws come from the same generator, in the same order, as without the compiler."""
    text = both(regression, optimizer, batches(6))
    assert text.count("segment") == 1 and "compiled for 1 form" in text and "not captured" not in text, text


@pytest.mark.slow
@needs_compiler
def test_masks_and_counts_may_be_results_and_code_is_kept():
    """Results of other types than the gradients. torch keeps compiled code on disk unless it has a reason not to."""
    from torch._dynamo.utils import counters

    def build():
        x, y = fluid.data("x", [None, 6]), fluid.data("y", [None, 1])
        out = fluid.layers.fc(x, 1)
        above = fluid.layers.less_than(y, out)
        above.persistable = True
        count = fluid.layers.cast(above, "int64")
        count.persistable = True
        return fluid.layers.mean(fluid.layers.square_error_cost(out, y))

    feeds = batches(4)
    before = counters["inductor"]["fxgraph_cache_bypass"]
    text = both(build, lambda: fluid.optimizer.SGD(0.1), feeds)
    assert "compiled for 1 form" in text and "not captured" not in text, text
    assert counters["inductor"]["fxgraph_cache_bypass"] == before


@pytest.mark.slow
@needs_compiler
def test_new_shapes_are_compiled_anew_and_many_are_not():
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), [b for size in (2, 3) for b in batches(3, size)])
    assert "compiled for 2 forms" in text, text


def test_what_is_left_out_says_why():
    """Without a second run of a form nothing is compiled: the first one finds out what can be."""

    def build():
        words = fluid.data("words", [None, 1], dtype="int64", lod_level=1)
        label = fluid.data("label", [None, 1], dtype="int64")
        pooled = fluid.layers.sequence_pool(fluid.layers.embedding(words, [20, 4], is_sparse=True), "sum")
        steps = fluid.layers.fill_constant([1], "int64", 0)
        limit = fluid.layers.fill_constant([1], "int64", 2)
        going = fluid.layers.less_than(steps, limit)
        loop = fluid.layers.While(going)
        with loop.block():
            fluid.layers.increment(steps, 1, in_place=True)
            fluid.layers.less_than(steps, limit, cond=going)
        out = fluid.layers.fc(pooled, 3, act="softmax")
        return fluid.layers.mean(fluid.layers.cross_entropy(out, label)) + fluid.layers.cast(steps, "float32") * 0.0

    words = fluid.create_lod_tensor(np.array([[1], [2], [3]], "int64"), [[1, 2]], fluid.CPUPlace())
    feed = {"words": words, "label": np.array([[0], [2]], "int64")}
    text = both(build, lambda: fluid.optimizer.SGD(0.1), [feed])
    assert "while not captured: it has a sub-Block" in text
    assert "sequence_pool not captured: it works on sequences (LoD)" in text
    assert "SELECTED_ROWS, not a dense tensor" in text


def test_an_operator_that_looks_at_values_is_left_out_from_then_on():
    def build():
        x = fluid.data("x", [None, 6])
        y = fluid.data("y", [None, 1])
        kept = fluid.layers.where(fluid.layers.cast(x, "bool"))  # as many rows as there are nonzero values
        rows = fluid.layers.reduce_sum(fluid.layers.cast(kept, "float32"))
        out = fluid.layers.fc(x, 1)
        return fluid.layers.mean(fluid.layers.square_error_cost(out, y)) + 0.0 * rows

    text = both(build, lambda: fluid.optimizer.SGD(0.1), batches(1) + batches(1, 5))
    assert "where_index not captured: the shape of its result depends on values" in text


@pytest.mark.slow
@needs_compiler
def test_numbers_of_the_program_are_constants_of_the_code():
    def build():
        weight = fluid.layers.assign(np.array([[0.5], [2.0], [1.0], [0.25]], "float32"))
        x, y = fluid.data("x", [4, 6]), fluid.data("y", [4, 1])
        return fluid.layers.mean(weight * fluid.layers.square_error_cost(fluid.layers.fc(x, 1), y))

    text = both(build, lambda: fluid.optimizer.SGD(0.1), batches(4))
    assert text.count("segment") == 1 and "not captured" not in text, text


def test_a_program_that_was_not_captured_says_so():
    main, startup, loss = program(regression, lambda: fluid.optimizer.SGD(0.1))
    compiled = fluid.CompiledProgram(main)
    exe = fluid.Executor()
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        exe.run(compiled, feed=batches(1)[0], fetch_list=[loss])
    assert "enable_compiler" in compiled.explain()


def test_products_by_address_are_tried_without_memory():
    """Small products are computed by the addresses of their operands, which the tensors of a trial do not have."""

    def wide():
        x, y = fluid.data("x", [None, 256]), fluid.data("y", [None, 1])
        return fluid.layers.mean(fluid.layers.square_error_cost(fluid.layers.fc(fluid.layers.fc(x, 32), 1), y))

    feed = {"x": RNG.randn(32, 256).astype("float32"), "y": RNG.randn(32, 1).astype("float32")}
    text = train(wide, lambda: fluid.optimizer.SGD(0.1), [feed], True)[2]
    assert "mul" not in text and "segment 0" in text


def compiled_as(before, monkeypatch):
    """Segments "compile" to their own kernels, with a call of `before` first."""

    def compile_(self, values, draws, filled):
        def compiled(values, generators):
            before()
            return self._function(*values, *generators)

        return compiled

    def checked(self, compiled, wanted, values, draws):
        return self._function(*values, *draws.generators)

    monkeypatch.setattr(segment.Segment, "_compile", compile_)
    monkeypatch.setattr(segment.Segment, "_checked", checked)


def test_results_that_differ_are_not_used(monkeypatch):
    """The step that compiles lets go of the kernels' results first; it computes them again, from the same draws."""

    def compile_(self, values, draws, filled):
        def code(*tensors):
            found = self._function(*values, *draws.generators)
            return [found[k] + 1.0 for k in filled]

        return segment._Compiled(code, list(range(len(values))), filled, len(self._near), [])

    monkeypatch.setattr(segment.Segment, "_compile", compile_)
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(4))
    assert "not compiled: ValueError: result 0 differs by 1 where" in text


def test_much_state_moves_in_its_kernel(monkeypatch):
    """Compiled code would make all of it anew beside the old one."""
    compiled_as(lambda: None, monkeypatch)
    monkeypatch.setattr(capture, "MOST_STATE", 100)
    text = both(regression, lambda: fluid.optimizer.Adam(0.01), batches(4))
    assert "1 x fused_adam not captured: its kernel moves 0 MiB of state in place" in text and "segment 0" in text


def test_what_is_compiled_stays_when_an_operator_refuses(monkeypatch):
    """The Plan is lowered again; a segment that no refusal touches is the same one, with the turns it has taken."""
    compiled = []

    def compile_(self, values, draws, filled):
        compiled.append(len(self.ops))
        return lambda values, generators: self._function(*values, *generators)

    def build():
        x, words = fluid.data("x", [4, 6]), fluid.data("words", [None, 1], dtype="int64", lod_level=1)
        pooled = fluid.layers.sequence_pool(fluid.layers.embedding(words, [20, 8]), "sum")  # between two segments
        return fluid.layers.mean(fluid.layers.fc(fluid.layers.fc(fluid.layers.fc(x, 8), 8) + pooled, 1))

    said = iter([turns.Verdict(2, 1)])

    def verdict(mine, kernels):
        return next(said, None) if len(kernels) >= 2 else None

    compiled_as(lambda: None, monkeypatch)
    monkeypatch.setattr(segment.Segment, "_compile", compile_)
    monkeypatch.setattr(turns, "verdict", verdict)
    words = fluid.create_lod_tensor(np.array([[1], [2], [3], [4]], "int64"), [[1, 1, 1, 1]], fluid.CPUPlace())
    feed = {"x": RNG.randn(4, 6).astype("float32"), "words": words}
    text = both(build, lambda: fluid.optimizer.SGD(0.1), [feed] * 12)
    assert "compiled code was slower" in text and len(compiled) == 2, (compiled, text)


def test_a_half_written_library_is_made_again(tmp_path, monkeypatch):
    """A process that is ended while it compiles leaves one, which no later process could load."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    library = tmp_path / "5o" / "c5.main.so"
    library.parent.mkdir()
    library.write_bytes(b"")
    assert not segment._remove_unfinished(ImportError(f"{library}: undefined symbol: kernel"))
    assert not segment._remove_unfinished(ImportError("/nowhere/else.so: file too short"))
    assert library.exists()
    assert segment._remove_unfinished(ImportError(f"ImportError: {library}: file too short"))
    assert not library.exists()


def test_values_die_inside_of_a_segment():
    main, startup, loss = program(regression, lambda: fluid.optimizer.SGD(0.1))
    strategy = fluid.BuildStrategy()
    strategy.enable_compiler = True
    exe = fluid.Executor()
    with fluid.scope_guard(fluid.Scope()):
        exe.run(startup)
        exe.run(fluid.CompiledProgram(main, strategy), feed=batches(1)[0], fetch_list=[loss])
    (plan,) = (p for p in exe._plans.values() if p.capture is not None)
    (found,) = plan.capture.segments
    made = [line for line in found.code.source.split("\n") if line.endswith(" = None")]
    assert len(made) > 3


def compute(seconds=0.02):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_compiled_code_that_is_slower_is_left(monkeypatch):
    """Steps take turns until it is known; then the Plan is lowered again without the segment."""
    compiled_as(compute, monkeypatch)
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(2 + 2 * turns.TURNS + 2))
    assert "not captured: compiled code was slower (" in text and "segment" not in text
    assert "nothing is compiled" in text
    monkeypatch.setattr(segment.Segment, "_compile", None)  # it is known: nobody compiles
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(3))
    assert "not captured: compiled code was slower (" in text and "segment" not in text


def test_compiled_code_that_is_faster_takes_no_turns_again(monkeypatch):
    by = []
    compiled_as(lambda: by.append("compiled"), monkeypatch)
    monkeypatch.setattr(turns, "verdict", lambda mine, kernels: turns.Verdict(1, 2) if len(kernels) >= 2 else None)
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(6))
    assert len(by) == 2 and capture.TRYING in text
    both(regression, lambda: fluid.optimizer.SGD(0.1), batches(8))  # the segment's turns are over, the whole step's are not
    assert len(by) == 2 + 2 + 2
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(6))
    assert len(by) == 2 + 2 + 2 + 4
    assert "the whole step: 1e+03 ms, 2e+03 ms by kernels alone" in text and capture.TRYING not in text


def test_a_step_that_is_slower_with_compiled_code_has_none(monkeypatch):
    """Each segment may win against its own lines and the step lose: segments give up what goes across operators."""
    compiled_as(lambda: None, monkeypatch)
    said = iter([turns.Verdict(1, 2), turns.Verdict(3, 2)])
    monkeypatch.setattr(turns, "verdict", lambda mine, kernels: next(said) if len(kernels) >= 2 else None)
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(12))
    assert "not captured: the whole step with compiled code was slower (3e+03 ms, the kernels 2e+03 ms)" in text
    assert "segment" not in text and "the whole step: 3e+03 ms" in text
    monkeypatch.setattr(segment.Segment, "_compile", None)
    text = both(regression, lambda: fluid.optimizer.SGD(0.1), batches(3))
    assert "the whole step with compiled code was slower" in text and "segment" not in text


def alike(*seconds):
    """Times on the clock and of the processor that agree."""
    return [(s, s) for s in seconds]


@pytest.mark.parametrize(
    ("mine", "kernels", "known"),
    [(alike(0.3), alike(0.1), None),
     (alike(0.3, 0.2), alike(0.1, 0.2), (0.2, 0.1, True)),
     (alike(0.11, 0.11), alike(0.1, 0.1), None),
     (alike(*[1e-3] * 4), alike(*[3e-3] * 4), None),
     (alike(*[1e-3] * 5), alike(*[1.1e-3] * 5), (1e-3, 1.1e-3, True)),
     # a busy machine: the clock says the kernels, the processor says compiled code
     ([(0.5, 0.1)] * 2, [(0.3, 0.2)] * 2, None),
     ([(0.5, 0.1)] * 14, [(0.3, 0.2)] * 14, None),
     ([(0.5, 0.1)] * 15, [(0.3, 0.2)] * 15, (0.1, 0.2, False)),
     ([(0.5, 0.201)] * 5, [(0.501, 0.2)] * 5, (0.5, 0.501, True)),
     # two threads against one
     ([(0.1, 0.2)] * 5, [(0.15, 0.15)] * 5, (0.1, 0.15, True))],
)  # fmt: skip
def test_when_turns_have_said_enough(mine, kernels, known):
    found = turns.verdict(mine, kernels)
    assert (None if found is None else (found.compiled, found.kernels, found.sure)) == known


def test_answers_belong_to_operators_and_forms():
    main = program(regression, lambda: fluid.optimizer.SGD(0.1))[0]
    ops = main.global_block().ops
    asked = turns.question(ops, ((4, 6), "float32"))
    turns.remember(asked, turns.Verdict(0.002, 0.001, sure=False))
    assert turns.recall(asked) is None
    turns.remember(asked, turns.Verdict(0.002, 0.001))
    again = program(regression, lambda: fluid.optimizer.SGD(0.1))[0].global_block().ops
    assert turns.recall(turns.question(again, ((4, 6), "float32"))) == turns.Verdict(0.002, 0.001)
    assert turns.recall(turns.question(again, ((5, 6), "float32"))) is None
    assert turns.recall(turns.question(again[:-1], ((4, 6), "float32"))) is None


def test_answers_know_what_stands_in_sub_blocks():
    def conditional(factor):
        def build():
            x = fluid.data("x", [2, 6])
            more = fluid.layers.less_than(fluid.layers.reduce_sum(x), fluid.layers.fill_constant([1], "float32", 0.0))
            y = fluid.layers.cond(more, lambda: fluid.layers.scale(x, factor), lambda: x + 1.0)
            return fluid.layers.mean(fluid.layers.fc(y, 1))

        return turns.question(program(build, lambda: fluid.optimizer.SGD(0.1))[0].global_block().ops, "form")

    assert conditional(2.0) == conditional(2.0)
    assert conditional(2.0) != conditional(3.0)
