"""Stateful models: requests that belong together reach one worker, in order.

A *sequence* is what carries one id. Its first request opens it and binds it to a worker, whose
handler keeps what it knows of it; it is *open* until no request has come for a while, or its
time is over, or its handler says so, or its worker is gone, and what the handler knew with it.
What still waits then opens it anew.

        SequenceQueue            one for the model version: admits, numbers, opens and ends
          Sequence  Sequence     a FIFO each, of which one job at a time stands in its lane
             Lane                the queue that one worker pulls from, like any other worker
"""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from torchkeep.frontend.deadline import Deadline
from torchkeep.frontend.jobs import Job, JobQueue, Pull
from torchkeep.runtime.messages import Prediction, RequestInput


@dataclass(frozen=True, slots=True)
class SequenceKeys:
    """The headers that speak of sequences, as `ts_header_key_sequence_*` names them."""

    id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"  # "true" where the server made the id
    end: str = "ts_request_sequence_end"  # of an answer: ids of what is over, with ; between


@dataclass(frozen=True, slots=True)
class SequenceLimits:
    """What model-config.yaml allows."""

    max_sequences: int  # open at a time
    max_jobs: int  # that wait, of one sequence
    max_idle_s: float
    timeout_s: float = 0  # of a sequence's whole life; 0: none


class SequenceQueue:
    """Takes the jobs of a stateful model version, for the lanes of its workers."""

    def __init__(self, capacity: int, limits: SequenceLimits, keys: SequenceKeys) -> None:
        self.capacity = capacity  # only described: each sequence has a limit of its own
        self._limits = limits
        self._keys = keys
        self._open: dict[str, Sequence] = {}
        self._unbound: deque[Sequence] = deque()  # no worker serves yet
        self._sequence_of: dict[Job, Sequence] = {}  # until the job is answered
        self._lanes: WeakSet[Lane] = WeakSet()  # each belongs to its worker
        self._lanes_made = 0

    def __len__(self) -> int:
        return sum(sequence.jobs_waiting for sequence in self._open.values())

    @property
    def tickets(self) -> int:
        """How many jobs there are idle workers for."""
        return sum(lane.tickets for lane in self._lanes)

    def has_room_for(self, request: RequestInput) -> bool:
        """Whether its sequence may have another job waiting, or a new one may be opened."""
        sequence = self._open.get(request.headers.get(self._keys.id, ""))
        if sequence is None:
            return len(self._open) < self._limits.max_sequences
        return sequence.jobs_waiting < self._limits.max_jobs

    def put(self, job: Job) -> None:
        """Append a job to its sequence; the caller has asked `has_room_for`.

        A request without an id opens a sequence, and its handler learns which.
        """
        headers = job.request.headers
        if not headers.get(self._keys.id):
            headers[self._keys.id] = f"ts-seq-{uuid.uuid4()}"
            headers[self._keys.start] = "true"
        sequence = self._opened(headers[self._keys.id])
        sequence.waiting.append(job)
        self._sequence_of[job] = sequence
        self.bind()
        self._advance(sequence)

    def drain(self) -> list[Job]:
        """Take everything out, and end all sequences."""
        jobs = [job for sequence in list(self._open.values()) for job in self._close(sequence)]
        for job in jobs:
            del self._sequence_of[job]
        return jobs

    def open_lane(self) -> "Lane":
        """The queue of one more worker."""
        self._lanes_made += 1
        lane = Lane(self, self._lanes_made)
        self._lanes.add(lane)
        return lane

    def _opened(self, sequence_id: str) -> "Sequence":
        sequence = self._open.get(sequence_id)
        if sequence is None:
            sequence = Sequence(sequence_id)
            self._open[sequence_id] = sequence
            self._unbound.append(sequence)
            if self._limits.timeout_s > 0:
                sequence.limit_life(self._limits.timeout_s, partial(self._end, sequence))
        return sequence

    def bind(self) -> None:
        """Give sequences that have no worker to the workers that have the fewest."""
        lanes = [lane for lane in self._lanes if lane.consumers] if self._unbound else []
        while lanes and self._unbound:
            sequence = self._unbound.popleft()
            sequence.lane = min(lanes, key=lambda lane: (len(lane.sequences), lane.number))
            sequence.lane.sequences.add(sequence)
            self._advance(sequence)

    def _advance(self, sequence: "Sequence", is_fed: bool = True) -> None:
        """Put the next job of a sequence into its lane, where none of it is there."""
        lane = sequence.lane
        while lane is not None and sequence.head is None and sequence.waiting:
            job = sequence.waiting.popleft()
            if job.is_over:
                del self._sequence_of[job]
                continue
            sequence.head = job
            job.on_abandoned = partial(self._abandoned, sequence, job)
            lane.append(job, is_fed)
        self._watch(sequence)

    def _watch(self, sequence: "Sequence") -> None:
        """Let the sequence end once it has been idle for too long."""
        if self._open.get(sequence.id) is not sequence:
            return
        if sequence.is_idle:
            sequence.idle.set(self._limits.max_idle_s, partial(self._end, sequence))
        else:
            sequence.idle.clear()

    def _abandoned(self, sequence: "Sequence", job: Job) -> None:
        """The client of a job that stands in a lane has left."""
        del self._sequence_of[job]
        sequence.head = None
        if sequence.lane is not None:
            sequence.lane.remove(job)
        self._advance(sequence)

    def handed_over(self, jobs: Series[Job]) -> None:
        """A worker has taken these from its lane; of each sequence, the next one steps up."""
        for job in jobs:
            sequence = self._sequence_of[job]
            job.on_abandoned = None
            sequence.head = None
            sequence.in_flight += 1
        for job in jobs:
            self._advance(self._sequence_of[job], is_fed=False)

    def answered(self, jobs: Series[Job], items: Series[Prediction]) -> None:
        """A worker is done with these jobs; an answer, or a piece of one, may end sequences."""
        for job in jobs:
            sequence = self._sequence_of.pop(job)
            sequence.in_flight -= 1
            self._watch(sequence)
            if job.describes and self._open.get(sequence.id) is sequence:
                self._end(sequence)  # it was opened for nothing else
        for item in items:
            for sequence_id in item.headers.get(self._keys.end, "").split(";"):
                ended = self._open.get(sequence_id.strip())
                if ended is not None:
                    self._end(ended)

    def return_to_head(self, job: Job) -> None:
        """A job that was taken, and not begun, is the next of its sequence again."""
        sequence = self._sequence_of[job]
        if sequence.head is job:  # it was not handed over
            assert sequence.lane is not None
            sequence.lane.append_left(job)
            return
        sequence.in_flight -= 1
        sequence = self._sequence_of[job] = self._opened(sequence.id)
        lane, head = sequence.lane, sequence.head
        if lane is not None and head is not None and lane.remove(head):
            head.on_abandoned = None
            sequence.waiting.appendleft(head)
            sequence.head = None
        sequence.waiting.appendleft(job)
        self.bind()
        self._advance(sequence)

    def end_all(self, sequences: Series["Sequence"]) -> None:
        """Their worker is gone."""
        for sequence in sequences:
            self._end(sequence)

    def _end(self, sequence: "Sequence") -> None:
        left = self._close(sequence)
        if left:
            anew = self._opened(sequence.id)
            anew.waiting.extend(left)
            self._sequence_of.update(dict.fromkeys(left, anew))
        self.bind()

    def _close(self, sequence: "Sequence") -> list[Job]:
        """Forget a sequence; returns what no worker has taken of it."""
        del self._open[sequence.id]
        sequence.close()
        lane, head = sequence.lane, sequence.head
        if lane is None:
            self._unbound.remove(sequence)
        else:
            lane.sequences.discard(sequence)
            if head is not None and lane.remove(head):
                head.on_abandoned = None
                sequence.head = None
                sequence.waiting.appendleft(head)
        left, sequence.waiting = list(sequence.waiting), deque()
        return left


class Sequence:
    """The requests of one id, while it is open."""

    def __init__(self, sequence_id: str) -> None:
        self.id = sequence_id
        self.waiting: deque[Job] = deque()  # behind the head
        self.head: Job | None = None  # in the lane, or in a batch that is being assembled
        self.in_flight = 0
        self.lane: Lane | None = None
        self.idle = Deadline(asyncio.get_running_loop())
        self._life: asyncio.TimerHandle | None = None

    @property
    def jobs_waiting(self) -> int:
        """TorchServe: what a worker has taken, if only for a batch to be, waits no more."""
        count = sum(not job.is_over for job in self.waiting)
        return count + (self.head is not None and self.lane is not None and self.head in self.lane)

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.in_flight or self.head is not None)

    def limit_life(self, seconds: float, end: Callable[[], None]) -> None:
        """Call `end` in so many seconds, unless it is closed before."""
        self._life = asyncio.get_running_loop().call_later(seconds, end)

    def close(self) -> None:
        """It ends: no timer of it is left."""
        self.idle.close()
        if self._life is not None:
            self._life.cancel()


class Lane(JobQueue):
    """What one worker pulls from: of each of its sequences, one job at a time.

    So a batch, or a step, never gets two of one sequence.
    """

    def __init__(self, owner: SequenceQueue, number: int) -> None:
        super().__init__(capacity=0)
        self.number = number
        self.sequences: set[Sequence] = set()
        self._owner = owner

    def __contains__(self, job: Job) -> bool:
        return job in self._jobs

    def pull(self, size: int, delay_s: float, take: Callable[[list[Job]], None]) -> Pull:
        """As for any queue; a sequence that waits for a worker may be bound to this one."""
        self._owner.bind()

        def take_over(jobs: list[Job]) -> None:
            self._owner.handed_over(jobs)
            take(jobs)

        return super().pull(size, delay_s, take_over)

    def take_predictions(self, count: int) -> list[Job]:
        jobs = super().take_predictions(count)
        self._owner.handed_over(jobs)
        return jobs

    def put_back(self, jobs: Series[Job]) -> None:
        for job in reversed(jobs):
            job.sent_at = None
            self._owner.return_to_head(job)
        self._feed()

    def answered(self, jobs: Series[Job], items: Series[Prediction]) -> None:
        self._owner.answered(jobs, items)

    def worker_left(self) -> None:
        """With what its handler knew of them: its sequences are over."""
        self._owner.end_all(list(self.sequences))

    def append(self, job: Job, is_fed: bool) -> None:
        """A job steps up."""
        self._jobs.append(job)
        if is_fed:
            self._feed()

    def append_left(self, job: Job) -> None:
        self._jobs.appendleft(job)

    def remove(self, job: Job) -> bool:
        """Take a job out; False where a batch that is being assembled holds it."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        return True
