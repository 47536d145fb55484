"""``fluid.dygraph.parallel``: data parallelism of eager networks. With one process everything is the identity."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from millstream.config import cluster, environment
from millstream.errors import ArgumentError, NotSupportedError
from millstream.fluid.core import ParallelStrategy
from millstream.fluid.dygraph.base import _need_eager
from millstream.fluid.dygraph.layers import Layer
from millstream.runtime.eager import VarBase

__all__ = ["DataParallel", "Env", "ParallelEnv", "ParallelStrategy", "prepare_context"]


class ParallelEnv:
    """What the launcher says in the environment.

    Attributes:
        nranks: number of processes (PADDLE_TRAINERS_NUM).
        local_rank: number of this one (PADDLE_TRAINER_ID).
        dev_id: its device (FLAGS_selected_gpus).
        current_endpoint, trainer_endpoints: PADDLE_CURRENT_ENDPOINT, PADDLE_TRAINER_ENDPOINTS.
    """

    def __init__(self) -> None:
        place = cluster()
        self._nranks = place.trainers_num
        self._local_rank = place.trainer_id
        self._dev_id = int(environment().get("FLAGS_selected_gpus", "0").split(",")[0] or 0)
        self._trainer_endpoints = list(place.trainer_endpoints) or [""]
        self._current_endpoint = place.current_endpoint

    @property
    def nranks(self) -> int:
        return self._nranks

    @property
    def local_rank(self) -> int:
        return self._local_rank

    @property
    def dev_id(self) -> int:
        return self._dev_id

    @property
    def current_endpoint(self) -> str:
        return self._current_endpoint

    @property
    def trainer_endpoints(self) -> list[str]:
        return self._trainer_endpoints


Env = ParallelEnv


def prepare_context(strategy: ParallelStrategy | None = None) -> ParallelStrategy | None:
    """Join the processes that the environment names, and return their strategy; None when there is only this one."""
    _need_eager("prepare_context")
    if strategy is None:
        env = ParallelEnv()
        strategy = ParallelStrategy()
        strategy.nranks, strategy.local_rank = env.nranks, env.local_rank
        strategy.trainer_endpoints, strategy.current_endpoint = env.trainer_endpoints, env.current_endpoint
    if strategy.nranks < 2:
        return None
    raise NotSupportedError(
        f"prepare_context: {strategy.nranks} processes are asked for (PADDLE_TRAINERS_NUM), but dygraph mode trains in one"
    )


class DataParallel(Layer):
    """`layers` trained on several devices, each with its share of the batch; with one process `layers` itself.

    Args:
        layers: the network.
        strategy: of prepare_context(); None in a single process.
    """

    def __init__(self, layers: Layer, strategy: ParallelStrategy | None) -> None:
        if not isinstance(layers, Layer):
            raise ArgumentError(f"DataParallel: 'layers' must be a Layer, received {type(layers).__name__}")
        if strategy is not None and strategy.nranks > 1:
            raise NotSupportedError(f"DataParallel: dygraph mode trains in one process, the strategy has {strategy.nranks}")
        super().__init__(layers.full_name() + "_data_parallel")
        self._layers = layers
        self._strategy = strategy

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self._layers(*inputs, **kwargs)

    def scale_loss(self, loss: VarBase) -> VarBase:
        """`loss` divided by the number of processes: itself."""
        if not isinstance(loss, VarBase):
            raise ArgumentError(f"scale_loss: 'loss' must be a Variable, received {type(loss).__name__}")
        return loss

    def apply_collective_grads(self) -> None:
        """Add the gradients of all processes up: with one there is nothing to add."""

    def state_dict(
        self, destination: Any = None, include_sublayers: bool = True, structured_name_prefix: str = ""
    ) -> OrderedDict[str, Any]:
        """The network's own state: keys without a prefix of this wrapper."""
        return self._layers.state_dict(destination, include_sublayers, structured_name_prefix)

    def set_dict(self, stat_dict: Any, include_sublayers: bool = True, use_structured_name: bool = True) -> None:
        """Take the network's state."""
        self._layers.set_dict(stat_dict, include_sublayers, use_structured_name)

    load_dict = set_dict
