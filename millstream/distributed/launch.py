"""Start a training script as ``paddle.distributed.launch`` does.

``millstream run -m paddle.distributed.launch [options] train.py [its arguments]``. A Program trains in one process here,
on as many cores as it is given places (``CPU_NUM``); so the script is run once, as trainer 0 of 1.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence

from millstream import config
from millstream.errors import NotSupportedError

__all__ = ["launch"]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="paddle.distributed.launch", description="Run a training script.")
    parser.add_argument("--cluster_node_ips", default="127.0.0.1", help="addresses of all machines: one is possible")
    parser.add_argument("--node_ip", default="127.0.0.1", help="address of this machine")
    parser.add_argument("--started_port", type=int, default=6170, help="port that is told to the script")
    parser.add_argument("--use_paddlecloud", action="store_true", help="accepted; without effect")
    parser.add_argument("--print_config", default="true", help="accepted; without effect")
    parser.add_argument("--selected_gpus", default=None, help="number of the GPU: one is possible")
    parser.add_argument("--log_level", default="20", help="accepted; without effect")
    parser.add_argument("--log_dir", default=None, help="folder of workerlog.0, which then takes what the script prints")
    parser.add_argument("training_script", help="the script")
    parser.add_argument("training_script_args", nargs=argparse.REMAINDER, help="its arguments")
    return parser.parse_args(arguments)


def launch(arguments: Sequence[str] | None = None) -> None:
    """Run the script that the command line names.

    Raises NotSupportedError: several machines or GPUs are asked for.
    """
    wanted = _parse(arguments)
    for option, text in (("cluster_node_ips", wanted.cluster_node_ips), ("selected_gpus", wanted.selected_gpus or "")):
        if len([part for part in text.split(",") if part]) > 1:
            raise NotSupportedError(
                f"launch: --{option}={text} asks for several processes, and a Program trains in one; on one machine use "
                "CompiledProgram(...).with_data_parallel(places=fluid.cpu_places(n))"
            )
    endpoint = f"{wanted.node_ip}:{wanted.started_port}"
    config.tell(
        PADDLE_TRAINER_ID="0", PADDLE_TRAINERS_NUM="1", PADDLE_CURRENT_ENDPOINT=endpoint, PADDLE_TRAINER_ENDPOINTS=endpoint
    )
    if wanted.selected_gpus:
        config.tell(FLAGS_selected_gpus=wanted.selected_gpus)
    sys.argv[:] = [wanted.training_script, *wanted.training_script_args]
    if wanted.log_dir is not None:
        os.makedirs(wanted.log_dir, exist_ok=True)
        log = open(os.path.join(wanted.log_dir, "workerlog.0"), "w", encoding="utf-8")  # noqa: SIM115 (until the end)
        sys.stdout = sys.stderr = log
    sys.path.insert(0, os.path.dirname(os.path.abspath(wanted.training_script)))
    runpy.run_path(wanted.training_script, run_name="__main__")


if __name__ == "__main__":
    launch()
