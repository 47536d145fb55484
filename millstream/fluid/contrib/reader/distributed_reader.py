"""Batches shared out among trainers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from millstream.config import cluster

__all__ = ["distributed_batch_reader"]


def distributed_batch_reader(batch_reader: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    """A reader of this trainer's batches: one of every PADDLE_TRAINERS_NUM in turn, by PADDLE_TRAINER_ID.

    An incomplete last round is left out, so all trainers take as many steps.

    Raises:
        ValueError: the id is not below the number of trainers, or one of the two is no number.
    """
    trainers, trainer = cluster().trainers_num, cluster().trainer_id
    if trainer >= trainers:
        raise ValueError(
            f"distributed_batch_reader: PADDLE_TRAINER_ID {trainer} must be below PADDLE_TRAINERS_NUM {trainers}"
        )

    def mine() -> Iterator[Any]:
        kept = None
        for number, batch in enumerate(batch_reader()):
            if number % trainers == trainer:
                kept = batch
            if number % trainers == trainers - 1:
                yield kept

    return mine
