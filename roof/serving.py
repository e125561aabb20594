"""One run of the server: read the configuration, plan, compose, listen, drain."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import uvloop

from torchkeep.frontend.listener import Listener
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.system_metrics import SystemMetrics
from torchkeep.frontend.thread_plan import ThreadPlan
from torchkeep.roof import measuring
from torchkeep.roof.announcing import announce
from torchkeep.roof.composition import Server, compose
from torchkeep.roof.configuring import read_configuration
from torchkeep.roof.listener_tls import tls_of_listeners
from torchkeep.roof.plan import Plan
from torchkeep.roof.workers import configured_sandbox
from torchkeep.runtime.command_line import Flags
from torchkeep.runtime.compute import plan_compute
from torchkeep.runtime.config import Config
from torchkeep.runtime.config_dump import config_dump
from torchkeep.runtime.log_setup import choose_outlet
from torchkeep.runtime.logs import AccessLog, configure_logging, start_step
from torchkeep.runtime.plugin_loading import Plugins
from torchkeep.runtime.processes import STOP_SIGNALS, keep_memory_private

log = logging.getLogger("torchkeep.runtime")

DRAIN_S = 50.0  # `torchserve --stop` waits for 60 s, the listeners for 55


def serve(flags: Flags) -> int:
    """Run the server in this process until SIGTERM or SIGINT; returns the exit code."""
    config, plugins = read_configuration(flags, os.environ, Path.cwd())
    outlet, warnings = choose_outlet(flags.log_config, config.vmargs, os.environ)
    config.warnings.extend(warnings)
    with (
        configure_logging(outlet) as logs,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        log.info("%s", config_dump(config, os.environ, measuring.metrics_file(config)))
        metrics = measuring.metrics(config, logs if outlet.keeps_metrics else None)
        plan = _plan(config, plugins, os.environ, logs.access, metrics)
        announce(plan)
        return runner.run(_serve(plan))


def _plan(
    config: Config,
    plugins: Plugins,
    environ: Mapping[str, str],
    access_log: AccessLog,
    metrics: Metrics,
) -> Plan:
    compute = plan_compute(config, environ)
    sandbox = configured_sandbox(config)
    if sandbox.level != "off" or config.key_source is not None:
        keep_memory_private()  # of the frontend itself
    pins = compute.pins and sandbox.may_pin
    return Plan(
        config,
        plugins,
        environ,
        compute,
        threads=ThreadPlan(compute.cores, compute.fixed_threads, pins),
        sandbox=sandbox,
        tls=tls_of_listeners(config),
        access_log=access_log,
        metrics=metrics,
    )


async def _serve(plan: Plan) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # see runtime/container.py
    status = 0
    async with compose(plan) as server:
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = [tasks.create_task(_listen(one)) for one in server.listeners]
                tasks.create_task(_report_ready(server, stop))
                tasks.create_task(_drain_at(stop, server, listening))
                if server.attested_tls is not None:
                    renewing = tasks.create_task(server.attested_tls.keep_fresh())
                    tasks.create_task(_cancel_at(stop, renewing))
                if not plan.config.disable_system_metrics:
                    reader = SystemMetrics(
                        plan.metrics, plan.config.metric_time_interval, script=server.metric_script
                    )
                    tasks.create_task(reader.run(stop))
        except* OSError as failures:
            # TorchServe: the words its users search for when a port is taken.
            for failure in failures.exceptions:
                start_step(str(failure))
            status = 1
    start_step("Torchserve stopped.")
    return status


async def _drain_at(
    stop: asyncio.Event, server: Server, listening: list[asyncio.Task[None]]
) -> None:
    """Stop accepting, on all ports at once; `_listen` returns when all are answered."""
    await stop.wait()
    for listener in server.listeners:
        listener.begin_drain()
    await server.snapshots.save("shutdown")
    _, busy = await asyncio.wait(listening, timeout=DRAIN_S)
    if busy:
        # Whoever still waits gets a 503 while there is time left to send it.
        await server.registry.close()


async def _cancel_at(stop: asyncio.Event, task: asyncio.Task[None]) -> None:
    await stop.wait()
    task.cancel()


async def _listen(listener: Listener) -> None:
    try:
        await listener.serve()
    except SystemExit:
        # uvicorn logs why it could not bind and leaves; the roof has things to take down.
        raise OSError(f"Failed to bind to address: {listener.address}") from None
    except OSError as error:  # of a unix socket
        raise OSError(
            f"Failed to bind to address: {listener.address} ({error.strerror})"
        ) from error


async def _report_ready(server: Server, stop: asyncio.Event) -> None:
    """Say where we listen, then which models are there and how long each took."""
    for listener in server.listeners:
        await listener.wait_started()
    for label, address in server.addresses.items():
        start_step(f"{label} API bind to: {address}")
    await server.snapshots.save("startup")
    start_step("Model server started.")
    started = monotonic()
    for served in server.loading:
        outcomes = [worker.first_outcome for worker in served.workers]
        if not outcomes:
            continue
        stopping = asyncio.ensure_future(stop.wait())
        loaded = asyncio.ensure_future(asyncio.wait(outcomes))
        await asyncio.wait({loaded, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        loaded.cancel()
        if stop.is_set():
            return
        ready = [worker.load_s for worker in served.workers if worker.load_s is not None]
        spec = served.spec
        if ready:
            start_step(
                f"Model {spec.name} {spec.version}: {len(ready)} of {len(outcomes)} workers"
                f" ready after {monotonic() - started:.1f} s, slowest load {max(ready):.2f} s"
            )
            # Each worker decides for itself, and on a noisy machine they may differ.
            for engine in sorted({worker.engine for worker in served.workers if worker.engine}):
                start_step(f"Model {spec.name} {spec.version} runs by {engine}")
