"""``fluid.transpiler.distribute_transpiler``: names of training on several machines, which is not built yet.

Programs may import the names and fill a configuration in; whoever transpiles is told so.
"""

from __future__ import annotations

from typing import Any, NoReturn

from millstream.errors import NotSupportedError

__all__ = ["DistributeTranspiler", "DistributeTranspilerConfig"]

_INSTEAD = (
    "training on several machines is not in millstream yet. On one machine run the Program as it is, "
    "or fluid.CompiledProgram(program).with_data_parallel(loss_name=..., places=fluid.cpu_places(n)) on several places"
)


class DistributeTranspilerConfig:
    """What a DistributeTranspiler would do: fields with 1.8.5's defaults.

    Attributes:
        slice_var_up, min_block_size: cut variables into blocks of at least that many elements for the servers.
        split_method: RoundRobin (when None) or HashName.
        sync_mode: servers wait for all trainers; mode: "pserver", "nccl2" or "collective".
    """

    slice_var_up = True
    split_method: Any = None
    min_block_size = 8192
    enable_dc_asgd = False
    mode = "pserver"
    print_log = False
    wait_port = True
    sync_mode = True
    half_async = False
    completely_not_async = False
    runtime_split_send_recv = False
    geo_sgd_mode = False
    geo_sgd_need_push_nums = 100
    nccl_comm_num = 1
    use_hierarchical_allreduce = False
    hierarchical_allreduce_inter_nranks = 0
    collective_mode: Any = None


class DistributeTranspiler:
    """Would cut a Program into those of trainers and servers. Raises NotSupportedError when it is made.

    Args:
        config: a DistributeTranspilerConfig.
    """

    def __init__(self, config: DistributeTranspilerConfig | None = None) -> None:
        if config is not None and not isinstance(config, DistributeTranspilerConfig):
            raise TypeError(
                f"DistributeTranspiler: config must be a DistributeTranspilerConfig, received {type(config).__name__}"
            )
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotSupportedError(f"{type(self).__name__}: {_INSTEAD}")
