"""DataLoader over datasets: order, workers, errors, shared memory, nothing left behind."""

import gc
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

import millstream.fluid as fluid
from millstream.fluid.dataloader.dataloader_iter import ParentWatchDog
from millstream.fluid.io import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

PLACE = fluid.CPUPlace()


@pytest.fixture(autouse=True)
def fresh():
    with fluid.unique_name.guard(), fluid.program_guard(fluid.Program(), fluid.Program()):
        yield
    gc.collect()
    assert not multiprocessing.active_children()


class Numbers(Dataset):
    def __init__(self, n, width=2):
        self.n, self.width = n, width

    def __getitem__(self, i):
        return np.full(self.width, i, "float32"), np.array([i], "int64")

    def __len__(self):
        return self.n


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(first, self.n, step):
            yield np.array([i], "int64")


def variables():
    return [fluid.data("x", [None, 2]), fluid.data("y", [None, 1], "int64")]


def values(loader):
    """The second field of all items."""
    return [[np.asarray(tensors[-1]).ravel().tolist() for tensors in item] for item in loader()]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_order_and_forms(workers, shared):
    def loader(dataset, **kwargs):
        kwargs = {"places": PLACE, "batch_size": 2, "return_list": True, "num_workers": workers, **kwargs}
        return DataLoader(dataset, use_shared_memory=shared, **kwargs)

    assert values(loader(Numbers(5))) == [[[0, 1]], [[2, 3]], [[4]]] and len(loader(Numbers(5))) == 3
    assert values(loader(Numbers(5), drop_last=True)) == [[[0, 1]], [[2, 3]]]
    assert values(loader(Numbers(5), places=[PLACE] * 2)) == [[[0, 1], [2, 3]]]
    sampler = BatchSampler(indices=[4, 0, 2], batch_size=2)
    assert values(loader(Numbers(5), batch_sampler=sampler, batch_size=1)) == [[[4, 0]], [[2]]]
    shuffled = [v for item in values(loader(Numbers(50), shuffle=True)) for v in item[0]]
    assert sorted(shuffled) == [*range(50)] and shuffled != sorted(shuffled)
    big = [item[0][0] for item in loader(Numbers(3, 100_000))]
    assert [np.asarray(t)[0, -1] for t in big] == [0, 2] and big[0].shape() == [2, 100_000]
    (item,) = DataLoader(Numbers(2), variables(), PLACE, batch_size=2, num_workers=workers)
    assert np.asarray(item[0]["y"]).tolist() == [[0], [1]] and np.asarray(item[0]["x"]).dtype == np.float32
    stream = [v for item in values(loader(Stream(7))) for v in item[0]]
    assert sorted(stream) == [*range(7)] and (workers > 1 or stream == [*range(7)])
    total = loader(
        TensorDataset([np.arange(4.0)]), collate_fn=lambda samples: [np.array([sum(float(s[0]) for s in samples)])]
    )
    assert values(total) == [[[1]], [[5]]]


class Broken(Numbers):
    def __init__(self, how):
        super().__init__(6)
        self.how = how

    def __getitem__(self, i):
        if i == 3:
            if self.how == "raise":
                raise KeyError("boom")
            if self.how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "hang":
                time.sleep(60)
            if self.how == "ragged":
                return np.zeros(3, "float32"), np.array([i])
        return super().__getitem__(i)


@pytest.mark.parametrize(
    "how, workers, error, message",
    [
        ("raise", 0, KeyError, "boom"),
        ("raise", 2, KeyError, "boom"),
        ("die", 2, RuntimeError, "exit code -9"),
        ("hang", 1, RuntimeError, "timeout=1 seconds"),
        ("ragged", 0, ValueError, r"field 0 of sample 1 has shape \[3\], that of sample 0 \[2\]"),
        ("ragged", 2, ValueError, r"field 0 of sample 1 has shape \[3\]"),
    ],
)
def test_failures_reach_the_loop(how, workers, error, message):
    loader = DataLoader(Broken(how), None, PLACE, True, batch_size=2, num_workers=workers, timeout=1 if how == "hang" else 0)
    got = []
    with pytest.raises(error, match=message):
        for item in loader:
            got.append(item)
    assert len(got) == 1


def test_worker_init_and_seeds():
    class Random(Dataset):
        def __getitem__(self, i):
            return np.array([np.random.randint(1 << 30), get_worker_info().id, MARK[0]])

        def __len__(self):
            return 4

    def init(k):
        MARK[0] = k + 10

    rows = [
        np.asarray(i[0][0])[0].tolist() for i in DataLoader(Random(), None, PLACE, True, num_workers=2, worker_init_fn=init)
    ]
    assert [r[1:] for r in rows] == [[0, 10], [1, 11], [0, 10], [1, 11]]
    assert len({r[0] for r in rows}) == 4 and MARK == [0] and get_worker_info() is None

    def bad_init(k):
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        list(DataLoader(Random(), None, PLACE, True, num_workers=1, worker_init_fn=bad_init))


MARK = [0]


def test_breaking_off_ends_the_workers():
    for _ in DataLoader(Numbers(1000), None, PLACE, True, num_workers=2):
        break
    gc.collect()
    assert not multiprocessing.active_children()


def test_wrong_arguments():
    for message, kwargs in (
        ("places", {"return_list": True}),
        ("feed_list", {"places": PLACE}),
        ("num_workers", {"places": PLACE, "return_list": True, "num_workers": -1}),
        (
            "batch_sampler is given",
            {"places": PLACE, "return_list": True, "batch_size": 2, "batch_sampler": BatchSampler(Numbers(3))},
        ),
    ):
        with pytest.raises(AssertionError, match=message):
            DataLoader(Numbers(3), **kwargs)
    with pytest.raises(AssertionError, match="Dataset"):
        DataLoader([1, 2], places=PLACE, return_list=True)
    with pytest.raises(AssertionError, match="shuffle"):
        DataLoader(Stream(3), places=PLACE, return_list=True, shuffle=True)
    for kwargs in (
        {},
        {"dataset": Numbers(3), "indices": [1]},
        {"dataset": Numbers(3), "batch_size": 0},
        {"dataset": Numbers(3), "drop_last": 1},
    ):
        with pytest.raises(AssertionError):
            BatchSampler(**kwargs)
    with pytest.raises(ValueError, match=r"1 fields.*2 Variables"):
        list(DataLoader(TensorDataset([np.zeros(3)]), variables(), PLACE))
    assert ParentWatchDog().is_alive()


def test_imperative_mode():
    dygraph = fluid.dygraph
    with dygraph.guard():
        items = list(DataLoader(Numbers(3), batch_size=2, places=PLACE))
        assert [v.shape for v in items[0]] == [[2, 2], [2, 1]] and items[1][1].numpy().tolist() == [[2]]
        loader = DataLoader.from_generator(capacity=2, use_multiprocess=True)
        loader.set_sample_generator(lambda: ((np.full(2, k, "float32"), k) for k in range(4)), 2, places=PLACE)
        assert [v[1].numpy().ravel().tolist() for v in loader()] == [[0, 1], [2, 3]]
