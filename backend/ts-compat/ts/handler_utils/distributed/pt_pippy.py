"""Ranks that call each other by torch's RPC. The pipelines of PiPPy are not offered."""

from typing import Any, NoReturn

from ts.context import Context

DEFAULT_TIMEOUT_S = 1800
DEFAULT_THREADS = 512


def initialize_rpc_workers(local_rank: int, world_size: int, ctx: Context) -> None:
    """Join the RPC of all ranks as `worker{rank}`.

    `pippy: {rpc_timeout, num_worker_threads}` of model-config.yaml says how.
    """
    from torch.distributed import rpc

    section = (ctx.model_yaml_config or {}).get("pippy") or {}
    rpc.init_rpc(
        f"worker{local_rank}",
        rank=local_rank,
        world_size=world_size,
        rpc_backend_options=rpc.TensorPipeRpcBackendOptions(
            num_worker_threads=int(section.get("num_worker_threads", DEFAULT_THREADS)),
            rpc_timeout=float(section.get("rpc_timeout", DEFAULT_TIMEOUT_S)),
        ),
    )


def get_pipeline_driver(model: Any, world_size: int, ctx: Context) -> NoReturn:
    """Not offered, as PiPPy is no longer developed."""
    raise ImportError(
        "get_pipeline_driver needs PiPPy, which is no longer developed: torch has its successor,"
        " torch.distributed.pipelining, which a handler can use after init_process_group"
    )
