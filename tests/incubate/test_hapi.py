"""Colour transforms and the sampler of several processes; the numbers are 1.8.5's."""

import numpy as np
import pytest

from millstream.incubate.hapi import vision
from millstream.incubate.hapi.distributed import DistributedBatchSampler

IMAGE = (np.arange(4 * 5 * 3).reshape(4, 5, 3) * 37 % 256).astype("uint8")
KINDS = (vision.BrightnessTransform, vision.ContrastTransform, vision.SaturationTransform, vision.HueTransform)
PIXELS = {  # seed 0, seed 1: the first six numbers
    "BrightnessTransform": ([0, 38, 76, 115, 153, 192], [0, 34, 69, 103, 138, 172]),
    "ContrastTransform": ([0, 33, 72, 110, 149, 187], [7, 42, 76, 111, 146, 180]),
    "SaturationTransform": ([0, 36, 75, 109, 147, 186], [2, 37, 71, 113, 148, 182]),
    "HueTransform": ([0, 52, 74, 111, 163, 185], [0, 9, 74, 111, 120, 185]),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_transforms_draw_from_numpy(kind):
    for seed, expected in enumerate(PIXELS[kind.__name__]):
        np.random.seed(seed)
        out = kind(0.4)(IMAGE)
        assert out.dtype == IMAGE.dtype and out.shape == IMAGE.shape and out.ravel()[:6].tolist() == expected
    assert kind(0)(IMAGE) is IMAGE
    with pytest.raises(ValueError, match="value should be"):
        kind(-1)


def test_jitter_holds_what_is_not_zero():
    jitter = vision.ColorJitter(0.1, 0, 0.3, 0.4)
    assert {type(t).__name__ for t in jitter.transforms} == {"BrightnessTransform", "SaturationTransform", "HueTransform"}
    assert jitter(IMAGE).shape == IMAGE.shape and vision.ColorJitter()(IMAGE) is IMAGE


def test_one_process_has_all_batches():
    sampler = DistributedBatchSampler(range(10), 4, shuffle=True)
    assert list(sampler) == [[2, 8, 4, 9], [1, 6, 7, 3], [0, 5]]
    assert list(sampler) == [[2, 9, 6, 4], [0, 3, 1, 7], [8, 5]]  # the next epoch's
    sampler.set_epoch(0)
    assert next(iter(sampler)) == [2, 8, 4, 9] and len(sampler) == 3
    assert len(DistributedBatchSampler(range(10), 4, drop_last=True)) == 2


def test_processes_take_turns(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "3")
    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    assert list(DistributedBatchSampler(range(10), 2)) == [[2, 3], [8, 9]]
    assert list(DistributedBatchSampler(range(10), 2, shuffle=True)) == [[4, 0], [9, 3]]
    with pytest.raises(AssertionError, match="positive integer"):
        DistributedBatchSampler(range(10), 0)
