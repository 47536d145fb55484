"""Datasets over MultiSlot files: parsing, commands, shuffling, training from them; data generators."""

import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.errors import FileFormatError
from millstream.fluid import layers as L
from millstream.fluid.dataset import DataFeedDesc, DatasetFactory
from millstream.fluid.incubate import data_generator
from millstream.fluid.io import DataLoader
from millstream.runtime.dataset_run import FetchHandler

PLACE = fluid.CPUPlace()
FIRST = "2 1 2 1 0.5\n1 3 1 1.5\n3 4 5 6 1 2.5\n"
SECOND = "2 1 2 1 3.5\n1 3 1 4.5\n"


@pytest.fixture(autouse=True)
def fresh():
    with fluid.scope_guard(fluid.Scope()), fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield


@pytest.fixture
def files(tmp_path):
    for name, text in (("d0", FIRST), ("d1", SECOND)):
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "d0"), str(tmp_path / "d1")]


def make(kind, files, **kwargs):
    a = L.data("a", [1], dtype="int64", lod_level=1)
    b = fluid.data("b", [None, 1])
    dataset = DatasetFactory().create_dataset(kind)
    dataset.set_batch_size(kwargs.get("batch_size", 2))
    dataset.set_thread(kwargs.get("thread", 1))
    dataset.set_filelist(files)
    dataset.set_use_var([a, b])
    dataset.set_pipe_command(kwargs.get("command", "cat"))
    return dataset, a, b


def rows(dataset, drop_last=False):
    return [
        [(np.asarray(v).ravel().tolist(), v.recursive_sequence_lengths()) for v in item[0].values()]
        for item in DataLoader.from_dataset(dataset, PLACE, drop_last)
    ]


EXPECTED = [
    [([1, 2, 3], [[2, 1]]), ([0.5, 1.5], [])],
    [([4, 5, 6, 1, 2], [[3, 2]]), ([2.5, 3.5], [])],
    [([3], [[1]]), ([4.5], [])],
]


@pytest.mark.parametrize("kind", ["QueueDataset", "InMemoryDataset"])
@pytest.mark.parametrize("command", ["cat", "sed s/x/x/"])
def test_batches(kind, command, files):
    dataset, _, _ = make(kind, files, command=command)
    if kind == "InMemoryDataset":
        with pytest.raises(ValueError, match="load_into_memory"):
            rows(dataset)
        dataset.load_into_memory()
        assert dataset.get_memory_data_size() == 5
    assert rows(dataset) == EXPECTED
    assert rows(dataset, True) == EXPECTED[:2]


def test_desc(files):
    text = make("QueueDataset", files)[0].desc()
    assert text.startswith(
        'name: "MultiSlotDataFeed"\nbatch_size: 2\nmulti_slot_desc {\n  slots {\n    name: "a"\n    type: "uint64"'
    )
    assert "    is_dense: true\n    is_used: true\n    shape: -1\n    shape: 1\n" in text and text.endswith(
        'pipe_command: "cat"\n'
    )


def test_desc_file(tmp_path):
    path = tmp_path / "data.proto"
    path.write_text(
        'name: "MultiSlotDataFeed"\nbatch_size: 2\nmulti_slot_desc {\n slots {\n name: "words"\n type: "uint64"\n'
        ' is_dense: false\n is_used: false\n }\n slots { name: "label" type: "uint64" is_used: true }\n}\n'
    )
    desc = DataFeedDesc(str(path))
    desc.set_batch_size(128)
    desc.set_use_slots(["words"])
    desc.set_dense_slots(["label"])
    text = desc.desc()
    assert "batch_size: 128" in text and text.count("is_used: true") == 2 and text.count("is_dense: true") == 1
    with pytest.raises(ValueError, match="no slot 'x'"):
        desc.set_use_slots(["x"])
    path.write_text("what is this")
    with pytest.raises(FileFormatError):
        DataFeedDesc(str(path))


@pytest.mark.parametrize(
    "line, message",
    [
        ("2 1\n", r"line 1: slot a: expected 2 values, found 1"),
        ("1 1 1 x\n", r"slot b: expected float values, found 'x'"),
        ("1 1 1 0.5 7\n", r"1 words follow the last of 2 slots"),
        ("0 1 0.5\n", r"slot a: the number of its values can not be 0"),
        ("1 1\n", r"slot b: expected the number of its values, found the end"),
        ("1 1 2 0.5 0.5\n", r"slot b: its variable has shape \[-1, 1\]"),
    ],
)
@pytest.mark.parametrize("thread", [1, 2])
def test_bad_lines(line, message, thread, files):
    with open(files[0], "w") as out:
        out.write(line)
    dataset, _, _ = make("QueueDataset", files, thread=thread)
    with pytest.raises(ValueError, match=message):
        rows(dataset)
    with pytest.raises(RuntimeError, match="exit code 3"):
        rows(make("QueueDataset", files, thread=thread, command="exit 3")[0])


def test_big_ids(tmp_path):
    path = tmp_path / "d"
    path.write_text(f"1 {2**64 - 1} 1 0\n")
    assert rows(make("QueueDataset", [str(path)])[0])[0][0][0] == [-1]


def test_shuffling(tmp_path):
    path = tmp_path / "d"
    path.write_text("".join(f"1 {k} 1 {k}\n" for k in range(100)))
    dataset, _, _ = make("InMemoryDataset", [str(path)] * 2, batch_size=200, thread=2)
    dataset.preload_into_memory()
    dataset.wait_preload_done()
    dataset.local_shuffle()
    (ids, _), (values, _) = rows(dataset)[0]
    assert ids == values and sorted(ids) == sorted([*range(100)] * 2) and ids != sorted(ids)
    with pytest.raises(ValueError, match="set_fea_eval"):
        dataset.slots_shuffle(["a"])
    dataset.set_fea_eval(1, True)
    dataset.slots_shuffle(["a"])
    (ids, _), (values, _) = rows(dataset)[0]
    assert ids != values and sorted(ids) == sorted(values)
    dataset.release_memory()
    assert dataset.get_memory_data_size() == 0
    for call in (make("QueueDataset", [])[0].local_shuffle, make("QueueDataset", [])[0].global_shuffle):
        with pytest.raises(NotImplementedError, match="InMemoryDataset"):
            call()


@pytest.mark.parametrize("kind", ["QueueDataset", "InMemoryDataset"])
@pytest.mark.parametrize("thread", [1, 2])
def test_training(kind, thread, files, capsys):
    dataset, _, b = make(kind, files, thread=thread)
    total = L.reduce_sum(b)
    count = L.create_global_var([1], 0.0, "float32", persistable=True, name="count")
    L.increment(count)
    exe = fluid.Executor(PLACE)
    exe.run(fluid.default_startup_program())
    if kind == "InMemoryDataset":
        dataset.load_into_memory()
    seen = []

    class Handler(FetchHandler):
        def handler(self, res_dict):
            seen.append(res_dict)

    assert (
        exe.train_from_dataset(
            fluid.default_main_program(),
            dataset,
            fetch_list=[total],
            fetch_info=["total"],
            print_period=1,
            fetch_handler=Handler({"t": total}, 10),
        )
        is None
    )
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("\tdata: [")]
    sums = sorted(float(line.split("[")[1].rstrip("]")) for line in lines)
    assert 0 < sum(sums) <= 12.5 and printed.count("total\treduce_sum_0.tmp_0\t\tlod: {}\n\tdim: 1\n") == len(lines)
    if thread == 1:
        assert sums == [2, 4.5, 6]
        exe.infer_from_dataset(fluid.default_main_program(), dataset, fetch_list=[total], print_period=2)
        exe.infer_from_dataset(fluid.default_main_program(), dataset, fetch_list=[total], print_period=2)
        # batches 4 to 6, then 7 to 9: those that are even
        assert capsys.readouterr().out.count("\tdata: [") == 3
    assert float(fluid.global_scope().find_var("count").get_tensor().numpy()[0]) >= len(lines)
    with pytest.raises(ValueError, match="dataset is needed"):
        exe.train_from_dataset(fluid.default_main_program())
    assert not [t for t in threading.enumerate() if t.name.startswith(("millstream-train", "millstream-fetch"))]


def test_generators(capsys, tmp_path, files):
    class Numbers(data_generator.MultiSlotDataGenerator):
        def generate_sample(self, line):
            def samples():
                yield [("a", [1, 2]), ("b", [0.5])]
                yield ("a", [3]), ("b", [1])

            return samples

    Numbers().run_from_memory()
    assert capsys.readouterr().out == "2 1 2 1 0.5\n1 3 1 1\n"
    strings = data_generator.MultiSlotStringDataGenerator()
    assert strings._gen_str([("a", ["1", "x"]), ("b", ["2"])]) == "2 1 x 1 2\n"
    numbers = Numbers()
    numbers._gen_str([("a", [1])])
    for wrong in ([("b", [1])], [("a", ["x"])], [("a", [])], 5, [3]):
        with pytest.raises(ValueError):
            numbers._gen_str(wrong)

    script = tmp_path / "generate.py"
    script.write_text(
        textwrap.dedent(
            """
            from millstream.fluid.incubate.data_generator import MultiSlotDataGenerator

            class Doubled(MultiSlotDataGenerator):
                def generate_sample(self, line):
                    def samples():
                        yield [("a", [int(line.split()[1])]), ("b", [2.0 * float(line.split()[-1])])]
                    return samples

            Doubled().run_from_stdin()
            """
        )
    )
    dataset, _, _ = make("QueueDataset", files[:1], command=f"{sys.executable} {script}", batch_size=9)
    assert rows(dataset)[0][1][0] == [1, 3, 5]


def test_numbers_of_all_forms(tmp_path):
    """The fast parser leaves what is not plain to the slow one: both give the same."""
    floats = ["0.5", "-0.125", "1e3", "1.5E-3", "+2", "inf", "-inf", "123456789012345678901", "0.1", "3", ".5", "7."]
    ints = [0, 7, -3, 2**63 - 1, 2**64 - 1, 123456789012345678]
    lines = [f"2 {i} {ints[k % 2]} 1 {x}" for k, (x, i) in enumerate(zip(floats, ints * 3))]
    text = "\n\n".join(lines[:6]) + "\r\n  " + "\t \n".join(line.replace(" ", "  ") for line in lines[6:])
    path = tmp_path / "d"
    path.write_bytes(text.encode())  # no newline at the end
    dataset, _, _ = make("QueueDataset", [str(path)], batch_size=100)  # which keeps zeros
    (got_ints, lengths), (got_floats, _) = rows(dataset)[0]
    assert got_floats == np.array(floats, "float64").astype("float32").tolist() and lengths == [[2] * len(lines)]
    assert got_ints[::2] == [(i + 2**63) % 2**64 - 2**63 for i in (ints * 3)[: len(lines)]]


@pytest.mark.parametrize("skip", [False, True])
def test_many_blocks(skip, tmp_path, monkeypatch):
    """Lines cut by blocks, several files and threads: every sample comes once."""
    monkeypatch.setattr("millstream.fluid.dataset.multi_slot._BLOCK", 100)
    names = []
    for name in range(4):
        path = tmp_path / f"d{name}"
        head = "1 id_7_a " if skip else ""
        path.write_text("".join(f"{head}{k % 3 + 1} {'5 ' * (k % 3 + 1)}1 {100 * name + k}\n" for k in range(50)))
        names.append(str(path))
    for kind in ("QueueDataset", "InMemoryDataset"):
        dataset, _, _ = make(kind, names, batch_size=7, thread=3)
        if kind == "InMemoryDataset":
            dataset.set_parse_ins_id(skip)
            dataset.load_into_memory()
        elif skip:
            continue
        found = rows(dataset)
        values = [int(v) for item in found for v in item[1][0]]
        assert sorted(values) == sorted(100 * n + k for n in range(4) for k in range(50))
        assert all(
            item[0][1] == [[int(v) % 100 % 3 + 1 for v in item[1][0]]] and set(item[0][0]) == {5} for item in found
        )


def test_a_pipe_without_end(files):
    """A few batches are in memory at a time, and the command ends with the reading."""
    dataset, _, _ = make("QueueDataset", files, command="yes '1 7 1 0.5'", thread=2)
    batches = iter(DataLoader.from_dataset(dataset, PLACE, False))
    assert [np.asarray(next(batches)[0]["b"]).ravel().tolist() for _ in range(3)] == [[0.5, 0.5]] * 3
    del batches
    for _ in range(100):
        if not [t for t in threading.enumerate() if t.name.startswith("millstream-dataset")]:
            break
        time.sleep(0.05)
    assert not [t for t in threading.enumerate() if t.name.startswith("millstream-dataset")]


@pytest.mark.parametrize("kind", ["InMemoryDataset", "QueueDataset"])
def test_zeros_of_sequences_stand_for_nothing_in_memory(kind, tmp_path):
    """The numbers are 1.8.5's."""
    path = tmp_path / "part"
    path.write_text("2 0 5 3 0.0 0.5 0.0000001 2 0 0.5\n2 0 0 1 0 2 0 0\n1 7 2 0 0 2 1 2\n")
    ids = fluid.layers.data("ids", [1], dtype="int64", lod_level=1)
    weights = fluid.layers.data("weights", [1], lod_level=1)
    dense = fluid.layers.data("dense", [2])
    dataset = fluid.DatasetFactory().create_dataset(kind)
    dataset.set_batch_size(3)
    dataset.set_filelist([str(path)])
    dataset.set_use_var([ids, weights, dense])
    if kind == "InMemoryDataset":
        dataset.load_into_memory()
    (feed,) = dataset._batches()
    assert np.array(feed["dense"]).tolist() == [[0, 0.5], [0, 0], [1, 2]]
    found = [np.array(feed["ids"]).ravel().tolist(), feed["weights"].recursive_sequence_lengths()]
    assert found == ([[5, 0, 7], [[1, 1, 1]]] if kind == "InMemoryDataset" else [[0, 5, 0, 0, 7], [[3, 1, 2]]])
