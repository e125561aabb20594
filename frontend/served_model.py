"""One version of a model, being served: its queue and its workers."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torchkeep.frontend.batch_traffic import BatchTraffic
from torchkeep.frontend.concurrent_traffic import ConcurrentTraffic
from torchkeep.frontend.errors import ServiceUnavailable
from torchkeep.frontend.gpus import Gpus, Turns
from torchkeep.frontend.jobs import Job, JobQueue
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.model_sandbox import ModelSandbox
from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.output_pace import OutputPace
from torchkeep.frontend.parallel import DistributionPorts, parallel_run, rank_threads
from torchkeep.frontend.sandbox_policy import SandboxPolicy
from torchkeep.frontend.sequences import SequenceKeys, SequenceLimits, SequenceQueue
from torchkeep.frontend.step_traffic import StepTraffic
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.frontend.traffic import Traffic
from torchkeep.frontend.worker_life import WorkerSettings
from torchkeep.frontend.worker_origin import WorkerOrigin
from torchkeep.frontend.worker_process import WorkerProcess
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.opening import ModelDir
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.messages import InputShape, Load, RequestInput, Way

UNREGISTER_GRACE_S = 5.0  # for a batch in flight when its model is unregistered


@dataclass(frozen=True, slots=True)
class WorkerGround:
    """What all workers of the server have in common."""

    zygote: ZygoteClient
    metrics: Metrics
    worker_ids: Iterator[int]  # TorchServe: port numbers that only grow
    environment: Callable[[], dict[str, str]]
    limit_max_image_pixels: bool
    decode_input_request: bool
    max_response_bytes: int
    plan: ThreadPlan
    has_ipex: bool = False  # IPEX is installed and not switched off
    # Runtimes that mean another Python than the server's, and where that is.
    interpreters: Mapping[str, str] = field(default_factory=dict)
    engine: str = "auto"  # of a model that does not say itself; see `Load`
    sandbox: SandboxPolicy = field(default_factory=lambda: SandboxPolicy(level="off"))
    output_pace: OutputPace = field(default_factory=OutputPace)
    distribution_ports: DistributionPorts = field(default_factory=DistributionPorts)
    gpus: Gpus = field(default_factory=Gpus)
    metrics_file: str = ""  # these two: see `Load`
    metrics_config: str = ""
    sequence_keys: SequenceKeys = field(default_factory=SequenceKeys)


TRAFFIC: Mapping[Way, type[Traffic]] = {
    "batches": BatchTraffic,
    "steps": StepTraffic,
    "concurrent": ConcurrentTraffic,
}


class ServedModel:
    """Accepts requests for one model version and owns the workers that answer them."""

    def __init__(self, spec: ModelSpec, model_dir: ModelDir, ground: WorkerGround) -> None:
        self.spec = spec
        self.model_dir = model_dir
        self.workers: list[WorkerProcess] = []
        self.queue = _queue(spec, ground.sequence_keys)
        self._ground = ground
        name = f"M-{spec.name}_{spec.version}"
        interpreter = ground.interpreters.get(spec.worker_runtime)
        self._sandbox = ModelSandbox(
            ground.sandbox, name, model_dir, spec.wants_network, interpreter, ground.output_pace
        )
        self._origin = WorkerOrigin(
            ground.zygote,
            name,
            _shared_weights(spec),
            ground.has_ipex and spec.may_gain_from_ipex and spec.engine in ("", "ipex"),
            self._sandbox,
            spec.interpreter or interpreter,
            spec.libraries,
        )
        self._turns = Turns(spec.device_ids)  # of its workers, at its GPUs
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def is_scaled(self) -> bool:
        """True when as many workers as asked for live. TorchServe: they may still be loading."""
        return sum(worker.is_running for worker in self.workers) >= self.spec.min_workers

    @property
    def is_ready(self) -> bool:
        """True when a worker has loaded it."""
        return any(worker.is_ready for worker in self.workers)

    @property
    def claim(self) -> ModelClaim:
        """What it is, for evidence and receipts."""
        return ModelClaim(self.spec.name, self.spec.version, self.model_dir.digest)

    @property
    def healthy_workers(self) -> int:
        return sum(worker.is_healthy for worker in self.workers)

    def submit(
        self, request_input: RequestInput, version: str | None = None, describes: bool = False
    ) -> Job:
        """Queue a request; `version` is what the client asked for, None for the default.

        One that `describes` the model is never in a batch with others.

        Raises ServiceUnavailable when there is no worker, or the queue is full, or the model
        wants a worker to be idle and none is.
        """
        if not self.workers or not self.queue.has_room_for(request_input):
            raise self._unavailable(version)
        if self.spec.use_job_ticket and self.queue.tickets <= 0:
            raise self._unavailable(version)
        job = Job(request_input, version or "default", describes)
        if self.spec.client_timeout_ms > 0:
            # TorchServe drops the request, and its client waits for ever.
            job.expire_in(self.spec.client_timeout_ms / 1000, self._expired())
        self.queue.put(job)
        return job

    def begin_scale(self, min_workers: int, max_workers: int) -> list[WorkerProcess]:
        """Start or let go of workers; returns those that were started.

        TorchServe: below the minimum it starts workers, above the maximum it lets the
        newest go, in between it changes nothing.
        """
        if self._uses_gpu and (level := self.spec.parallel_level):
            # TorchServe: as many as there are GPUs for, and none is an error at registration.
            room = self._ground.gpus.count // level
            min_workers, max_workers = min(min_workers, room), min(max_workers, room)
        self.spec = replace(self.spec, min_workers=min_workers, max_workers=max_workers)
        started = [self._start_worker() for _ in range(min_workers - len(self.workers))]
        if not started:
            self._let_go(self.workers[max(max_workers, 0) :])
        if not self.workers:
            self._refuse_queued()
            self._keep(self._origin.close())  # nothing shares its weights any more
        return started

    def _let_go(self, leaving: list[WorkerProcess]) -> None:
        self.workers = [worker for worker in self.workers if worker not in leaving]
        for worker in leaving:
            worker.begin_stop()
            self._keep(worker.stop(float(self.spec.response_timeout_s), self._unavailable))

    async def scale(self, min_workers: int, max_workers: int) -> int:
        """Scale, and wait until the new workers have loaded or the first one failed.

        Returns 200, or the status of the first failure (500; 507 for lack of memory).
        """
        started = self.begin_scale(min_workers, max_workers)
        outcomes = {worker.first_outcome for worker in started}
        while outcomes:
            done, outcomes = await asyncio.wait(outcomes, return_when=asyncio.FIRST_COMPLETED)
            for outcome in done:
                if outcome.result() != 200:
                    return outcome.result()
        return 200

    async def close(self, grace_s: float = UNREGISTER_GRACE_S) -> None:
        """Answer everybody, end the workers and remove the unpacked archive."""
        workers, self.workers = self.workers, []
        for worker in workers:
            worker.begin_stop()  # what it was about to take is queued again
        self._refuse_queued()
        for worker in workers:
            self._keep(worker.stop(grace_s, self._unavailable))
        self._keep(self._origin.close())
        while self._leaving:
            await asyncio.wait(self._leaving)
        self._sandbox.close()
        await asyncio.to_thread(self.model_dir.close)

    def _start_worker(self) -> WorkerProcess:
        spec, ground = self.spec, self._ground
        worker_id, threads = self._worker_id(), ground.plan.threads(spec.max_workers)
        parallel = parallel_run(spec.name, worker_id, spec.parallel_type, spec.parallel_level)
        if parallel.world_size > 1:
            threads = rank_threads(spec.torchrun, threads, parallel.world_size)
        gpu = ground.gpus.next(self._turns, spec.parallel_level) if self._uses_gpu else None
        environment = ground.environment()
        load = Load(
            model_name=spec.name,
            model_version=spec.version,
            model_dir=str(self.model_dir.path),
            handler=spec.handler,
            envelope=spec.envelope,
            batch_size=max(1, spec.batch_size),
            limit_max_image_pixels=ground.limit_max_image_pixels,
            decode_input_request=ground.decode_input_request,
            environment={**environment, **gpu.environment} if gpu else environment,
            threads=threads,
            engine=spec.engine or ground.engine,
            dtype=spec.dtype or "float32",
            warm_up_inputs=[InputShape(shape, dtype) for shape, dtype in spec.warm_up_inputs],
            warm_up_file=spec.warm_up_file,
            metrics_file=ground.metrics_file,
            metrics_config=ground.metrics_config,
            parallel=parallel,
            gpu_id=gpu.gpu_id if gpu else -1,
            way=spec.way,
        )
        settings = WorkerSettings(
            load=load,
            max_batch_delay_s=spec.max_batch_delay_ms / 1000,
            response_timeout_s=spec.response_timeout_s,
            startup_timeout_s=spec.startup_timeout_s,
            max_retry_timeout_s=spec.max_retry_timeout_s,
            max_response_bytes=ground.max_response_bytes,
        )
        worker = WorkerProcess(
            worker_id,
            settings,
            TRAFFIC[spec.way](settings, self._queue_of_worker(), ground.metrics),
            self._origin,
            self._sandbox,
            ground.plan,
            ground.metrics,
        )
        worker.start()
        self.workers.append(worker)
        return worker

    @property
    def _uses_gpu(self) -> bool:
        return self.spec.device_type == "gpu"

    def _worker_id(self) -> str:
        # TorchServe: ports, of which each rank has one.
        level = self.spec.parallel_level
        ground = self._ground
        return str(ground.distribution_ports.take(level) if level else next(ground.worker_ids))

    def _queue_of_worker(self) -> JobQueue:
        return self.queue.open_lane() if isinstance(self.queue, SequenceQueue) else self.queue

    def _keep(self, leaving: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(leaving)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _refuse_queued(self) -> None:
        # TorchServe leaves these clients without an answer for ever.
        for job in self.queue.drain():
            job.fail(self._unavailable(None if job.version == "default" else job.version))

    def _expired(self) -> ServiceUnavailable:
        spec = self.spec
        return ServiceUnavailable(
            f'Model "{spec.name}" did not answer within its clientTimeoutInMills,'
            f" {spec.client_timeout_ms} ms. Please ask again later, or use scale workers API to add"
            " workers."
        )

    def _unavailable(self, version: str | None = None) -> ServiceUnavailable:
        # TorchServe: with a version, a stray quote follows it.
        model = (
            f'"{self.spec.name}"' if version is None else f'"{self.spec.name}" Version {version}"'
        )
        return ServiceUnavailable(
            f"Model {model} has no worker to serve inference request. Please use scale workers"
            " API to add workers. If this is a sequence inference, please check if it is closed,"
            " or expired; or exceeds maxSequenceJobQueueSize"
        )


def _queue(spec: ModelSpec, keys: SequenceKeys) -> JobQueue | SequenceQueue:
    if not spec.stateful:
        return JobQueue(spec.job_queue_size)
    limits = SequenceLimits(
        spec.max_num_sequence,
        spec.max_sequence_job_queue_size,
        spec.sequence_max_idle_ms / 1000,
        spec.sequence_timeout_ms / 1000,
    )
    return SequenceQueue(spec.job_queue_size, limits, keys)


def worker_ids(first: int) -> Iterator[int]:
    """The numbers that name workers: they start at `initial_worker_port` and never repeat."""
    return itertools.count(first)


def _shared_weights(spec: ModelSpec) -> bool | None:
    """Whether its workers are forks of one that has loaded it; None: where it is safe."""
    if spec.parallel_type:  # ranks are forks of their worker, and each loads its own part
        return False
    # A loop, or threads, that a coroutine's handler has started do not survive a fork.
    return bool(spec.shared_weights) if spec.is_async else spec.shared_weights
