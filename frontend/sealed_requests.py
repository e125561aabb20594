"""Requests that were sealed for this very process: opened once, and within their time.

A request that was opened before, or too long ago, is refused in the clear: its answer would be
sealed with a key that has sealed another one.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from torchkeep.frontend.errors import (
    ReplayedRequest,
    SealedRequestInvalid,
    ServiceUnavailable,
    StaleRequest,
    UnknownHpkeKey,
)
from torchkeep.runtime.identity import HpkeKey
from torchkeep.runtime.sealed_messages import (
    Destination,
    InnerRequest,
    SealedMessageError,
    Session,
    UnknownKey,
    key_id,
    open_request,
    session_id,
)

WINDOW_S = 60  # between the clocks of client and server, and for the way
MAX_SESSIONS = 4096  # the one that was used longest ago is let go of: its client begins another
MAX_REMEMBERED = 1 << 19  # request ids, some 50 MB; with more than 4000 requests/s they are too few


class SealedRequests:
    """Opens sealed requests, on all ports of a process."""

    def __init__(self, key: HpkeKey, clock: Callable[[], float] = time.time) -> None:
        self._private_key = key.private_key
        self._key_id = key_id(key.public_key)
        self._clock = clock
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()  # the last used last
        self._seen = SeenRequests(WINDOW_S * 1000, MAX_REMEMBERED)

    def open(self, destination: Destination, sealed: bytes) -> InnerRequest:
        """Raises UnknownHpkeKey, SealedRequestInvalid, StaleRequest, ReplayedRequest.

        And ServiceUnavailable, where more requests came than can be remembered.
        """
        name = session_id(sealed)
        try:
            if name is not None:
                request = self._session(name).open(destination, sealed)
            else:
                request = open_request(self._private_key, self._key_id, destination, sealed)
        except UnknownKey as error:
            raise UnknownHpkeKey from error
        except SealedMessageError as error:
            raise SealedRequestInvalid from error
        self._seen.add(int(self._clock() * 1000), request.time_ms, request.request_id)
        if request.wants_session and name is None:
            self._begin_session(request)
        return request

    def _session(self, name: bytes) -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise UnknownKey("The request is sealed in a session that is over.")
        self._sessions.move_to_end(name)
        return session

    def _begin_session(self, request: InnerRequest) -> None:
        # The ids of sessions are seen on the way: nobody takes the place of another's.
        if request.request_id in self._sessions:
            raise ReplayedRequest
        self._sessions[request.request_id] = Session(request)
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)


class SeenRequests:
    """The ids of the requests that could come again, by the time that they say they are of.

    What is forgotten is too old to be taken, also when the clock is set back.
    """

    def __init__(self, window_ms: int, most: int) -> None:
        self._window_ms = window_ms
        self._most = most
        self._ids: dict[int, set[bytes]] = {}  # of the windows that they are of
        self._count = 0
        self._first = 0  # window; all before it are forgotten

    def add(self, now_ms: int, time_ms: int, request_id: bytes) -> None:
        """Raises StaleRequest, ReplayedRequest, ServiceUnavailable."""
        self._forget_before((now_ms - self._window_ms) // self._window_ms)
        window = time_ms // self._window_ms
        if abs(now_ms - time_ms) > self._window_ms or window < self._first:
            raise StaleRequest((now_ms - time_ms) / 1000, self._window_ms / 1000)
        ids = self._ids.get(window)
        if ids is None:
            ids = self._ids[window] = set()
        elif request_id in ids:
            raise ReplayedRequest
        if self._count >= self._most:
            raise ServiceUnavailable("Too many sealed requests came within two minutes.")
        ids.add(request_id)
        self._count += 1

    def _forget_before(self, window: int) -> None:
        if window > self._first:
            self._first = window
            self._ids = {other: ids for other, ids in self._ids.items() if other >= window}
            self._count = sum(map(len, self._ids.values()))
