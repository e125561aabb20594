"""The JSON of one described model version, keys in TorchServe's order."""

import json
from datetime import datetime
from typing import Any

from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.worker_process import WorkerProcess
from torchkeep.runtime.messages import Body

MISSING = object()


def describe(model: ServedModel) -> dict[str, Any]:
    """A model version with its workers and the state of its queue."""
    spec = model.spec
    described: dict[str, Any] = {
        "modelName": spec.name,
        "modelVersion": spec.version,
        "modelUrl": spec.url,
        "runtime": spec.runtime,
        "minWorkers": spec.min_workers,
        "maxWorkers": spec.max_workers,
        "batchSize": spec.batch_size,
        "maxBatchDelay": spec.max_batch_delay_ms,
        "responseTimeout": spec.response_timeout_s,
        "startupTimeout": spec.startup_timeout_s,
        "maxRetryTimeoutInSec": spec.max_retry_timeout_s,
        "clientTimeoutInMills": spec.client_timeout_ms,
        "parallelType": spec.parallel_type,
        "parallelLevel": spec.parallel_level,
        "deviceType": spec.device_type,
    }
    if spec.device_ids is not None:
        described["deviceIds"] = spec.device_ids
    described |= {
        "continuousBatching": spec.continuous_batching,
        "useJobTicket": spec.use_job_ticket,
        "useVenv": spec.use_venv,
        "stateful": spec.stateful,
        "sequenceMaxIdleMSec": spec.sequence_max_idle_ms,
        "sequenceTimeoutMSec": spec.sequence_timeout_ms,
        "maxNumSequence": spec.max_num_sequence,
        "maxSequenceJobQueueSize": spec.max_sequence_job_queue_size,
        "loadedAtStartup": spec.loaded_at_startup,
        "workers": [_describe_worker(worker) for worker in model.workers],
        "jobQueueStatus": {
            "remainingCapacity": max(0, model.queue.capacity - len(model.queue)),
            "pendingRequests": len(model.queue),
        },
    }
    if reason := _why_not_ready(model):
        described["notReady"] = reason
    return described


def customized_metadata(answer: Body) -> Any:
    """What a handler said when asked to describe itself; MISSING where it said nothing.

    TorchServe: what is no object counts as an empty one, members that are null are left out,
    and numbers that JSON does not have are texts.
    """
    text = bytes(answer).strip()
    if not text:
        return MISSING
    try:
        metadata = json.loads(text, object_pairs_hook=_without_nulls, parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _without_nulls(members: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in members if value is not None}


def _why_not_ready(model: ServedModel) -> str:
    """What its workers failed of, where none of them is ready."""
    if model.is_ready:
        return ""
    return next((worker.last_error for worker in model.workers if worker.last_error), "")


def _describe_worker(worker: WorkerProcess) -> dict[str, Any]:
    return {
        "id": worker.worker_id,
        "startTime": _local_time(worker.started_at),
        # TorchServe: a worker that is still loading is already UNLOADING
        "status": "READY" if worker.is_ready else "UNLOADING",
        "memoryUsage": worker.memory_bytes,
        "pid": worker.pid,
        "gpu": worker.gpu_id >= 0,
        # TorchServe's words where the driver's tool cannot be asked; we do not ask it
        "gpuUsage": "failed to obtained gpu usage" if worker.gpu_id >= 0 else "N/A",
    }


def _local_time(timestamp: float) -> str:
    # TorchServe: the server's local time, with a Z that does not mean UTC
    return datetime.fromtimestamp(timestamp).isoformat(timespec="milliseconds") + "Z"
