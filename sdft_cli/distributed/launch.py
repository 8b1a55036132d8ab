"""Start the processes of a team on this machine, as ``torchrun --nproc-per-node N`` does, and keep their exit code."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from sdft_cli.errors import UsageError

#: Seconds that the leader has to finish its step and save, once a signal has asked for it.
SAVING = 600


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``sdft`` with ``arguments`` in ``count`` processes; the exit code of the one that failed first, or 0.

    `UsageError` for more processes than there are GPUs, where there are any.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available() and count > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UsageError(f"--gpus {count}: this machine shows {there}", f"set --gpus {there}, or fewer")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what failed has said so itself
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        shutdown_timeout=SAVING,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "sdft_cli", *arguments)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            print(f"error: rank {rank} was killed by signal {-failure.exitcode}", file=sys.stderr, flush=True)
        return code_of(failure.exitcode)
    return 0


def code_of(exit_code: int) -> int:
    """What a shell would say of a process that ended so."""
    return 128 - exit_code if exit_code < 0 else exit_code
