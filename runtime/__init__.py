"""Torchkeep in ten minutes: a folder is a process.

runtime/     the ground both processes stand on: configuration, messages, the sealed wire.
             Imports nothing else of ours, except `runtime/__main__.py`, the door to the roof.
frontend/    the one frontend process: HTTP in, jobs, workers out. Never imports torch.
backend/     the zygote and the worker processes it forks: sealed messages in, handler calls.
             `backend/ts-compat` is a path root that holds the `ts` package handlers import.
modelstore/  archives at rest: open, check, unpack, write, seal. Stands alone.
client/      a user's own process: verify a server, then talk to it. Shares claims, quotes,
             certificates and sealed messages with the server, through runtime/ alone.
roof/        the top of the frontend process, and the only folder that knows the others: parses
             the command line, plans, composes everything and serves until SIGTERM.

             roof/ (parse, plan, compose, run)
          |            |              |
     frontend/ ---> modelstore/    asks the zygote (`python -P -m torchkeep.backend`) for workers
          |                             |
          +--------> runtime/ <---------+      frontend and backend meet only in runtime/messages.py

A start: `runtime/start_stop.py` is `torchserve`, from the first check to the exit code, and
`runtime/container.py` what comes before it in the image that Dockerfile.tdx makes;
`runtime/config.py` is the one table of keys, whose file `runtime/properties.py` reads. Then
`roof/serving.py` settles a `roof/plan.py`, and `roof/composition.py` builds the server from it.

Life of a request: `frontend/http_protocol.py` -> `app.Api.begin` -> `inference.submit` ->
`targets.read_target` -> `registry.get` -> `parsing.read_input` -> `ServedModel.submit` ->
`JobQueue` -> a worker's `Traffic` pulls a batch -> `runtime/wire.py` seals it ->
`backend/worker.py` opens it -> `backend/service.py` calls the handler -> back. What is no
prediction goes through ASGI. Where keys are asked for, `frontend/authorization.py` comes first.

There are three ways of running, each a `frontend/traffic.py` and a `backend/service.py` of its own:
`BatchTraffic`, `StepTraffic` (continuous batching), `ConcurrentTraffic` (coroutines, served by
`backend/concurrent_worker.py`). A stateful model's queue is a `frontend/sequences.py`. A model of
several processes is one worker all the same: `frontend/parallel.py` numbers its ranks,
`backend/ranks.py` forks them; `frontend/gpus.py` gives out the GPUs.

A streamed answer: before that reply, `ts.handler_utils.utils` -> `backend/piece_sender.py` ->
chunks on the wire -> `WorkerProcess` -> `Job` -> `frontend/piece_stream.py` -> HTTP chunks.

Over TLS, `frontend/tls_transport.py` is below that protocol; `runtime/tls.py` says how it speaks,
`runtime/tls_files.py` where its certificate and key come from.

Life of a model: `management` -> `ModelStore.open(url)`, a `modelstore/opening.py`
(`modelstore/download.py` fetches it, if `modelstore/reach.py` lets it) -> `ModelRegistry.register`,
which settles its `frontend/model_spec.py` and lets `frontend/dependencies.py` install what the
archive lists -> `ServedModel.scale` ->
`WorkerProcess` -> `WorkerOrigin.fork` -> `Load` -> `Loaded` -> serving.
A worker is forked from the zygote stage that has its handler's imports (plain, torch, ipex) or
from a model stage, which has loaded the model; `backend/warm_up.py` and `backend/cpu.py` make a
loaded model fast, `frontend/thread_plan.py` gives each worker its threads and cores.
Before any code of the model runs, `backend/confine.py` confines the process, as
`frontend/model_sandbox.py` decided: a cell with a scratch directory, perhaps a user of its own.

A sealed archive: `found.recognise` -> `trust` -> the key, by a `KeySource` (`runtime/keys.py`) ->
`sealed.SealedFile` -> `archive.unpack` into a `memory_place`; `modelstore/janitor.py` outlives
a killed server. While its key is not there the model is a `frontend/waiting_model.py`.

A server that is verified: `frontend/attestation.py` asks `runtime/evidence.py` for a quote over
`runtime/claims.py`; `client/attesting.py` fetches it, `client/verifier.py` judges it by a
`client/policy.py`, and `client/pinned_tls.py` lets no connection end at another key. That key is
born in `runtime/identity.py`, `frontend/attested_tls.py` listens with it, and its certificate is a
`runtime/ratls.py`. `runtime/simulated_tee.py` is for where there is no TEE, and proves nothing.

A sealed request is opened by `frontend/request_opener.py` before anybody reads it, each one once
(`sealed_requests.py`); its answer, and whoever wants a receipt, gets a `frontend/envelope.py`. The
bytes of both are `runtime/sealed_messages.py` and `receipts.py`, which `client/` has in common.

What is served is kept by `frontend/snapshots.py`, for the next start, in a `SnapshotStore`.

A plugin is made of `runtime/plugins.py`, and nothing else of ours; `runtime/plugin_loading.py` runs
it before there is anything else, and `frontend/plugin_endpoints.py` asks its endpoints.

A log line: `logging`, `AccessLog` or `MetricLog` -> the thread in `runtime/logs.py` -> an outlet
that `runtime/log_setup.py` chose: `Stdout`, `Files`, `Configured`. What is measured goes to
`frontend/metrics.py`, which `metrics.yaml` and `metrics_mode` lead on to text or lines.
"""
