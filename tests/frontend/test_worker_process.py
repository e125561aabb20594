"""Workers that misbehave on the wire: each fails only its own batch, and is replaced."""

import asyncio
import logging
import os
import re
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from scripted_worker import GOOD, model_with, request

from torchkeep.frontend import batch_traffic, worker_process
from torchkeep.frontend.errors import ServiceUnavailable, WorkerFailed
from torchkeep.frontend.jobs import Job
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.worker_metrics import MAX_WORKER_FAMILIES
from torchkeep.frontend.worker_output import MODEL_LOG, WorkerOutput
from torchkeep.frontend.worker_process import WORKER_LOG


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param("send(b'garbage' * 100)", id="garbage"),
        pytest.param("send(sealed(good(request))[:-1]); sys.exit()", id="cut frame"),
        pytest.param(
            "data = sealed(good(request)); send(data[:-1] + bytes([data[-1] ^ 1]))", id="altered"
        ),
        pytest.param(
            "send(sealed(Predictions(200, '', [Prediction('other', b'x')])))", id="unknown id"
        ),
        pytest.param("send(sealed(Predictions(200, '', [])))", id="no answer"),
        pytest.param("send(sealed(Loaded(200, 'again')))", id="other message"),
        pytest.param("send(sealed(request))", id="own request sent back"),
        pytest.param(
            "send(sealed(Predictions(200, '', [Prediction(request.requests[0].request_id,"
            " b'x' * 1001)])))",
            id="body over the limit",
        ),
        pytest.param("send(struct.pack('>I', 1 << 31))", id="huge length"),
        pytest.param(
            "lists = b'\\xdd' + struct.pack('>I', 60 << 20) + b'\\x90' * (60 << 20);"
            " send(b''.join(wire._seal_record(struct.pack('>I', len(lists)) + lists)))",
            id="endless lists",
        ),
        pytest.param("send(chunk(('other', b'x')))", id="piece for an unknown id"),
        pytest.param("send(chunk(('r', b'x'), ('r', b'x')))", id="two pieces for one id"),
        pytest.param("send(chunk())", id="no piece"),
        pytest.param("send(chunk(('r', b'x' * 1001)))", id="piece over the limit"),
        pytest.param("send(chunk(('other', b'x'), status=500))", id="error for an unknown id"),
        pytest.param("connection.close()", id="closed"),
    ],
)
def test_a_misbehaving_worker_fails_only_its_batch(deed: str) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(deed)
            assert await model.scale(1, 1) == 200
            (worker,) = model.workers
            pid = worker.pid
            doomed, queued = model.submit(request()), model.submit(request("next"))
            with pytest.raises(WorkerFailed, match=r"^Worker died\.$") as raised:
                await doomed.reply()
            assert raised.value.status == 500
            assert (await queued.reply()).body == b"fine"
            assert worker.pid != pid
            await model.close()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    asyncio.run(scenario())


def test_the_log_says_what_was_wrong_with_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with("send(sealed(Predictions(200, '', []))); sys.exit(0)")
            await model.scale(1, 1)
            with pytest.raises(WorkerFailed):
                await model.submit(request()).reply()
            assert (await model.submit(request()).reply()).body == b"fine"
            await model.close()

    asyncio.run(scenario())
    assert "W-9000-m_1.0 it answered requests that it was not given" in caplog.messages


STARTED = "W-9000-m_1.0 State change null -> WORKER_STARTED"
LOADED = "W-9000-m_1.0 State change WORKER_STARTED -> WORKER_MODEL_LOADED"
LOST = "9000 Worker disconnected. WORKER_MODEL_LOADED"
STOPPED = "W-9000-m_1.0 State change WORKER_MODEL_LOADED -> WORKER_STOPPED"
RETRY = "Retry worker: 9000 in 1 seconds."
RESTARTED = "W-9000-m_1.0 State change WORKER_STOPPED -> WORKER_STARTED"
TIMED_OUT = [
    LOST,
    "Number or consecutive unsuccessful inference 1",
    "Backend worker error\norg.pytorch.serve.wlm.WorkerInitializationException:"
    " Backend worker did not respond in given time",
]
DIED = [LOST, "the worker process ended with status 0"]
LEAVING = [
    "W-9000-m_1.0 State change WORKER_MODEL_LOADED -> WORKER_SCALED_DOWN",
    "9000 Worker disconnected. WORKER_SCALED_DOWN",
    "W-9000-m_1.0 State change WORKER_SCALED_DOWN -> WORKER_STOPPED",
]


def life_of_a_worker(caplog: pytest.LogCaptureFixture, *deeds: str, **spec: int) -> list[str]:
    """What the log tells of a worker that fails once for each deed, serves, and is let go."""

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(*deeds, **spec)
            await model.scale(1, 1)
            for _ in deeds:
                with pytest.raises(WorkerFailed):
                    await model.submit(request()).reply()
            assert (await model.submit(request()).reply()).body == b"fine"
            await model.close()

    with caplog.at_level(logging.DEBUG, WORKER_LOG.name):
        asyncio.run(scenario())
    lines = [record.getMessage() for record in caplog.records if record.name == WORKER_LOG.name]
    assert all(line.startswith("W-9000-m_1.0 ") for line in lines)
    told = [line.removeprefix("W-9000-m_1.0 ") for line in lines]
    return [re.sub(r"timestamp: \d{13}$", "timestamp: T", one) for one in told if "pid" not in one]


@pytest.mark.parametrize(
    ("deed", "told"), [("sys.exit(0)", DIED), ("time.sleep(60)", TIMED_OUT)], ids=["died", "late"]
)
def test_the_life_of_a_worker_is_told_in_torchserves_lines(
    deed: str, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert life_of_a_worker(caplog, deed, response_timeout_s=1) == [
        STARTED,
        LOADED,
        *told,
        STOPPED,
        "Auto recovery start timestamp: T",
        RETRY,
        RESTARTED,
        LOADED,
        "Auto recovery succeeded, reset recoveryStartTS",
        *LEAVING,
    ]


def test_consecutive_unsuccessful_inferences_are_counted_until_one_succeeds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "BACKOFF_S", (0.01,))
    late = "time.sleep(60)"
    once = f"send(sealed(good(request))); request = receive(); {late}"
    caplog.set_level(logging.DEBUG, WORKER_LOG.name)

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(late, late, once, response_timeout_s=1)
            await model.scale(1, 1)
            for name in ("a", "b", "fine", "c"):
                with suppress(WorkerFailed):
                    await model.submit(request(name)).reply()
            await model.close()

    asyncio.run(scenario())
    told = [text.rpartition(" ")[2] for text in caplog.messages if "Number or" in text]
    assert told == ["1", "2", "1"]


def test_a_worker_that_fails_again_is_retried_later_each_time_within_the_retry_window(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "BACKOFF_S", (0.01, 0.02, 0.03))
    caplog.set_level(logging.DEBUG, WORKER_LOG.name)

    async def scenario() -> None:
        async with asyncio.timeout(60):
            model = model_with(before_load="sys.exit(1)", max_retry_timeout_s=300)
            assert await model.scale(1, 1) == 500
            while not any("0.03 seconds" in text for text in caplog.messages):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert model.healthy_workers == 1
            await model.close()

    asyncio.run(scenario())
    told = [text.removeprefix("W-9000-m_1.0 ") for text in caplog.messages]
    assert [text for text in told if text.startswith(("Auto recovery f", "Retry"))][:5] == [
        "Retry worker: 9000 in 0.01 seconds.",
        "Auto recovery failed again",
        "Retry worker: 9000 in 0.02 seconds.",
        "Auto recovery failed again",
        "Retry worker: 9000 in 0.03 seconds.",
    ]


def test_the_back_off_is_torchserves() -> None:
    schedule = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597]
    assert list(worker_process.BACKOFF_S) == schedule


# Answers one request at once, which earns it others ahead, and has three when it goes on.
QUICK = """
send(sealed(good(request)))
request = receive()
received[:0] = [receive(), receive()]
"""


async def all_sent(model: ServedModel, *names: str) -> list[Job]:
    """Jobs of which the first is answered, and the others are with the worker."""
    first, *others = [model.submit(request(name)) for name in names]
    assert (await first.reply()).body == b"fine"
    while len(model.queue):  # noqa: ASYNC110 - a plain length
        await asyncio.sleep(0.01)
    return others


@pytest.mark.parametrize(
    ("deed", "survivors"),
    [
        ("connection.close()", ["b", "c"]),
        ("send(sealed(good(request))); connection.close()", ["a", "c"]),
        ("send(b'garbage' * 100)", ["b", "c"]),
        ("send(sealed(good(received[0])))", ["b", "c"]),
        ("time.sleep(60)", ["b", "c"]),
    ],
)
def test_what_was_sent_ahead_is_answered_by_the_next_worker(
    deed: str, survivors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_traffic, "QUICK_S", 10.0)

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(QUICK + deed, response_timeout_s=1)
            await model.scale(1, 1)
            pid = model.workers[0].pid
            jobs = dict(zip("abc", await all_sent(model, *"xabc"), strict=True))
            assert model.workers[0].pid == pid
            for name, job in jobs.items():
                if name in survivors:
                    assert (await job.reply()).body == b"fine"
                else:
                    with pytest.raises(WorkerFailed, match="died"):
                        await job.reply()
            assert model.workers[0].pid != pid
            await model.close()

    asyncio.run(scenario())


def test_what_was_sent_ahead_is_answered_before_a_worker_is_scaled_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_traffic, "QUICK_S", 10.0)
    deed = (
        QUICK + "time.sleep(0.2)\nwhile True:\n send(sealed(good(request)))\n request = receive()"
    )

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(deed)
            await model.scale(1, 1)
            jobs = await all_sent(model, *"xabc")
            model.begin_scale(0, 0)
            assert [(await job.reply()).body for job in jobs] == [b"fine"] * 3
            await model.close()

    asyncio.run(scenario())


def test_what_was_sent_ahead_is_refused_when_its_model_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch_traffic, "QUICK_S", 10.0)

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(QUICK + "time.sleep(60)")
            await model.scale(1, 1)
            jobs = await all_sent(model, *"xabc")
            await model.close(grace_s=0.1)
            for job in jobs:
                with pytest.raises(ServiceUnavailable):
                    await job.reply()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("workers", "quick_s", "spec"), [(2, 10.0, {}), (1, 0.0, {}), (1, 10.0, {"batch_size": 2})]
)
def test_nothing_is_sent_ahead_to_one_of_many_to_a_slow_one_or_to_one_that_batches(
    workers: int, quick_s: float, spec: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_traffic, "QUICK_S", quick_s)
    deed = "send(sealed(good(request)))\nrequest = receive()\ntime.sleep(60)"

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(*[deed] * workers, **spec)
            await model.scale(workers, workers)
            size = spec.get("batch_size", 1)
            answered = [model.submit(request(f"a{n}")) for n in range(workers * size)]
            for job in answered:
                await job.reply()
            for number in range(workers * size + 3):
                model.submit(request(f"b{number}"))
            await asyncio.sleep(0)
            assert len(model.queue) == 3
            await model.close(grace_s=0)

    asyncio.run(scenario())


def test_an_unasked_message_ends_the_worker() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with("send(sealed(good(request)) * 1 + sealed(good(request)))")
            await model.scale(1, 1)
            pid = model.workers[0].pid
            assert (await model.submit(request()).reply()).body == b"fine"
            assert (await model.submit(request("2")).reply()).body == b"fine"
            assert model.workers[0].pid != pid
            await model.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param("send(chunk(('other', b'x')))", id="unknown id"),
        pytest.param("send(sealed(Loaded(200, 'again')))", id="other message"),
        pytest.param("connection.close()", id="closed"),
        pytest.param("send(sealed(Predictions(503, 'Prediction failed', [])))", id="exception"),
        pytest.param("send(chunk(('r', b'never'), status=418))", id="error code"),
    ],
)
def test_a_stream_that_goes_wrong_ends_with_an_error(deed: str) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(
                f"send(chunk(('r', b'one'), ('s', b'two'))); {deed}; receive()", batch_size=2
            )
            await model.scale(1, 1)
            jobs = [model.submit(request("r")), model.submit(request("s"))]
            assert [(await job.reply()).body for job in jobs] == [b"one", b"two"]
            assert jobs[0].stream is not None
            with pytest.raises(WorkerFailed):
                await jobs[0].stream.take()
            await model.close()

    asyncio.run(scenario())


def test_an_error_for_one_request_of_a_batch_leaves_the_others() -> None:
    deed = """
send(chunk(("r", b"never seen"), status=418))
send(chunk(("r", b"dropped"), ("s", b"one ")))
send(sealed(good(request)))
send(sealed(good(receive())))
receive()
"""

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(deed, batch_size=2)
            await model.scale(1, 1)
            pid = model.workers[0].pid
            failing, streaming = model.submit(request("r")), model.submit(request("s"))
            with pytest.raises(WorkerFailed, match="said by the handler") as raised:
                await failing.reply()
            assert raised.value.status == 418
            assert (await streaming.reply()).body == b"one "
            assert streaming.stream is not None
            assert await streaming.stream.take() == (b"fine", True)
            assert (await model.submit(request("next")).reply()).body == b"fine"
            assert model.workers[0].pid == pid
            await model.close()

    asyncio.run(scenario())


def test_each_piece_restarts_the_response_timeout() -> None:
    deed = """
for _ in range(4):
    time.sleep(0.5)
    send(chunk(("r", b"piece ")))
time.sleep(0.5)
send(sealed(good(request)))
receive()
"""

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(deed, response_timeout_s=1)
            await model.scale(1, 1)
            job = model.submit(request("r"))
            await job.reply()
            assert job.stream is not None
            pieces = [await job.stream.take() for _ in range(4)]
            assert pieces == [*[(b"piece ", False)] * 3, (b"fine", True)]
            silent = model.submit(request("s"))
            with pytest.raises(WorkerFailed, match="died"):
                await silent.reply()
            await model.close()

    asyncio.run(scenario())


def test_a_piece_instead_of_a_load_ends_the_worker() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(before_load="send(chunk(('r', b'x')))", max_retry_timeout_s=0)
            assert await model.scale(1, 1) == 500
            await model.close()

    asyncio.run(scenario())


def test_endless_metric_names_stay_bounded() -> None:
    deed = """
while True:
    samples = [Metric(f"n{n}\\n", 1.0, "ms", "gauge", {"k\\x00": "v\\n"}) for n in range(3000)]
    send(sealed(good(request, metrics=samples)))
    request = receive()
"""

    async def scenario() -> None:
        async with asyncio.timeout(30):
            metrics = Metrics()
            model = model_with(deed, metrics=metrics)
            await model.scale(1, 1)
            for number in range(3):
                await model.submit(request(str(number))).reply()
            text = metrics.text().decode()
            assert text.count("# TYPE n") == MAX_WORKER_FAMILIES
            assert "\x00" not in text
            await model.close()

    asyncio.run(scenario())


def test_a_worker_that_never_loads_is_stopped_at_the_startup_timeout() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(before_load="time.sleep(60)", startup_timeout_s=1)
            assert await model.scale(1, 1) == 500
            assert model.workers[0].last_error == "Backend worker did not respond in given time"
            await model.close()

    asyncio.run(scenario())


FORGED = "\\x1b[2Jevil\\n2026-01-01T00:00:00,000 [INFO ] MainThread ACCESS_LOG - forged"


def test_what_a_worker_says_of_its_load_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    refused = f"send(sealed(Loaded(500, '{FORGED}' + 'x' * 20000))); time.sleep(60)"
    proud = f"send(sealed(Loaded(200, 'ok', 1, '{FORGED}')))"

    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with(before_load=refused)
            assert await model.scale(1, 1) == 500
            (worker,) = model.workers
            assert worker.last_error.startswith("?[2Jevil?2026")
            assert len(worker.last_error) < 10_000
            await model.close()
            model = model_with(before_load=proud)
            assert await model.scale(1, 1) == 200
            assert model.workers[0].engine.startswith("?[2Jevil?2026")
            await model.close()

    asyncio.run(scenario())
    told = [line for line in caplog.messages if "evil" in line]
    assert told
    assert not any("\n" in line or "\x1b" in line for line in told)


def test_output_is_logged_in_lines_without_control_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        read_end, write_end = os.pipe()
        output = WorkerOutput(read_end, logging.WARNING, "W-1-m_1.0-stderr")
        os.write(write_end, b"first\x1b[2J\nsec")
        await asyncio.sleep(0)
        os.write(write_end, b"ond\n" + b"x" * 9000 + b"\xff\nrest")
        os.close(write_end)
        output.close()
        output.close()

    with caplog.at_level(logging.INFO, MODEL_LOG.name):
        asyncio.run(scenario())
    lines = [record.getMessage().removeprefix("W-1-m_1.0-stderr ") for record in caplog.records]
    assert lines[0] == "first?[2J"
    assert lines[1] == "second"
    assert lines[2:] == ["x" * 8192, "x" * 808 + r"\xff", "rest"]


def test_the_wait_of_a_request_is_counted_where_it_was_answered_with_a_prediction() -> None:
    deed = f"send(sealed(Predictions(503, 'Prediction failed', [])))\nrequest = receive()\n{GOOD}"

    async def scenario() -> None:
        async with asyncio.timeout(30):
            metrics = Metrics("host")
            model = model_with(deed, metrics=metrics)
            await model.scale(1, 1)
            with pytest.raises(WorkerFailed):
                await model.submit(request()).reply()
            await model.submit(request(), describes=True).reply()
            assert "QueueTime{" not in metrics.text().decode()
            await model.submit(request()).reply()
            await model.close()
            text = metrics.text().decode()
            assert 'QueueTime{Level="Host",Hostname="host",} 0.0\n' in text
            assert text.count("ts_queue_latency_microseconds{") == 1

    asyncio.run(scenario())


def test_printed_metrics_are_taken_and_stay_out_of_the_model_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    printed = (
        "[METRICS]Work.Count:2|#Level:Model|#type:COUNTER|#hostname:vm,1717105307",
        "[METRICS]Work.Count:nan|#Level:Model|#type:COUNTER|#hostname:vm,1717105307",
        "plain",
    )
    deed = f"print({os.linesep.join(printed)!r}, flush=True)\n{GOOD}"

    async def scenario() -> None:
        async with asyncio.timeout(30):
            metrics = Metrics("host")
            model = model_with(deed, metrics=metrics)
            await model.scale(1, 1)
            await model.submit(request()).reply()
            await model.close()
            assert 'Work{Level="Model",Hostname="host",} 2.0\n' in metrics.text().decode()

    caplog.set_level(logging.INFO, MODEL_LOG.name)
    asyncio.run(scenario())
    told = [record.getMessage() for record in caplog.records if record.name == MODEL_LOG.name]
    assert told == ["W-9000-m_1.0-stdout plain"]
    error = f'W-9000-m_1.0-stdout Failed to parse metrics line: "{printed[1]}".'
    assert error in caplog.messages


def test_a_flood_of_output_neither_holds_up_the_loop_nor_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flood = [sys.executable, "-c", "import os\nwhile True: os.write(2, b'y\\n' * 2000)"]

    async def scenario() -> None:
        read_end, write_end = os.pipe()
        process = subprocess.Popen(flood, stderr=write_end)  # noqa: ASYNC220 - a fork, no wait
        os.close(write_end)
        try:
            output = WorkerOutput(read_end, logging.WARNING, "W-1-m_1.0-stderr")
            while not caplog.records:  # noqa: ASYNC110 - turns of the loop are what is measured
                await asyncio.sleep(0)
            before = len(caplog.records)
            await asyncio.sleep(0)
            assert len(caplog.records) - before < 1000  # lines in one turn of the loop
            output.close()  # while the process goes on writing
        finally:
            process.kill()
            process.wait()

    with caplog.at_level(logging.INFO, MODEL_LOG.name):
        asyncio.run(scenario())
    *_, told = [record.getMessage() for record in caplog.records if "(" in record.getMessage()]
    assert "lines before the next were dropped)" in told


def test_a_stopped_worker_has_ended_even_if_it_ignores_its_connection() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with("", before_load="sys.exit = lambda _: time.sleep(60)")
            assert await model.scale(1, 1) == 200
            (worker,) = model.workers
            await model.close()
            assert not psutil.pid_exists(worker.pid)

    asyncio.run(scenario())


def test_a_reply_that_comes_too_late_answers_nobody() -> None:
    async def scenario() -> None:
        async with asyncio.timeout(30):
            model = model_with("time.sleep(0.1); send(sealed(good(request)))", response_timeout_s=0)
            assert await model.scale(1, 1) == 200
            with pytest.raises(WorkerFailed, match="Worker died"):
                await model.submit(request()).reply()
            await model.close()

    asyncio.run(scenario())
