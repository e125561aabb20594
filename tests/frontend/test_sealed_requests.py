"""Each sealed request once, within its time, and no more of them than can be remembered."""

from dataclasses import replace

import pytest

from torchkeep.frontend import sealed_requests
from torchkeep.frontend.errors import (
    ReplayedRequest,
    SealedRequestInvalid,
    ServiceUnavailable,
    StaleRequest,
    UnknownHpkeKey,
)
from torchkeep.frontend.sealed_requests import SealedRequests, SeenRequests
from torchkeep.runtime.identity import HpkeKey
from torchkeep.runtime.sealed_messages import Destination, InnerRequest, Session, seal_request

KEY = HpkeKey()
HERE = Destination("POST", "/predictions/m", "m")
NOW_S = 1_790_000_000.0
REQUEST = InnerRequest(b"k" * 32, int(NOW_S * 1000), b"i" * 16, [], "", b"body")


class Clock:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sealed(clock: Clock) -> SealedRequests:
    return SealedRequests(KEY, clock)


def by_hpke(request: InnerRequest, key: HpkeKey = KEY) -> bytes:
    return seal_request(key.public_key, HERE, request)


def test_a_request_opens_once(sealed: SealedRequests) -> None:
    body = by_hpke(REQUEST)
    assert sealed.open(HERE, body) == REQUEST
    for again in (body, by_hpke(REQUEST)):  # sealed anew, it is the same request still
        with pytest.raises(ReplayedRequest):
            sealed.open(HERE, again)
    assert sealed.open(HERE, by_hpke(replace(REQUEST, request_id=b"j" * 16)))


def test_what_did_not_open_has_not_come(sealed: SealedRequests) -> None:
    body = by_hpke(REQUEST)
    with pytest.raises(SealedRequestInvalid):
        sealed.open(replace(HERE, path="/predictions/n"), body)
    with pytest.raises(SealedRequestInvalid):
        sealed.open(HERE, body[:-1])
    assert sealed.open(HERE, body)


def test_another_key(sealed: SealedRequests) -> None:
    with pytest.raises(UnknownHpkeKey):
        sealed.open(HERE, by_hpke(REQUEST, HpkeKey()))


@pytest.mark.parametrize("off_s", [-60, -59.9, 0, 60])
def test_clocks_may_differ_by_a_minute(sealed: SealedRequests, clock: Clock, off_s: float) -> None:
    clock.now_s += off_s
    assert sealed.open(HERE, by_hpke(REQUEST))


@pytest.mark.parametrize("off_s", [-3600, -60.1, 60.1, 3600])
def test_clocks_may_not_differ_more(sealed: SealedRequests, clock: Clock, off_s: float) -> None:
    clock.now_s += off_s
    with pytest.raises(StaleRequest, match=r"60 s either way"):
        sealed.open(HERE, by_hpke(REQUEST))


def test_a_replay_is_refused_at_every_later_time(sealed: SealedRequests, clock: Clock) -> None:
    """As one that has come before, and then as one that is too old."""
    body = by_hpke(replace(REQUEST, time_ms=REQUEST.time_ms + 59_000))
    sealed.open(HERE, body)
    for later_s in range(0, 600, 7):
        clock.now_s = NOW_S + later_s
        with pytest.raises(ReplayedRequest if later_s <= 119 else StaleRequest):
            sealed.open(HERE, body)


def test_a_clock_that_is_set_back_lets_no_replay_in(sealed: SealedRequests, clock: Clock) -> None:
    body = by_hpke(REQUEST)
    sealed.open(HERE, body)
    clock.now_s = NOW_S + 600
    sealed.open(HERE, by_hpke(replace(REQUEST, time_ms=REQUEST.time_ms + 600_000)))
    clock.now_s = NOW_S
    with pytest.raises(StaleRequest):
        sealed.open(HERE, body)


def test_what_is_remembered_is_bounded() -> None:
    seen = SeenRequests(60_000, 3)
    for number in range(3):
        seen.add(600_000, 600_000, bytes([number]))
    with pytest.raises(ServiceUnavailable):
        seen.add(600_000, 600_000, b"one more")
    with pytest.raises(ReplayedRequest):
        seen.add(600_000, 600_000, b"\0")
    seen.add(720_001, 720_001, b"one more")  # the others are too old to come again


def test_a_session_opens_what_follows(sealed: SealedRequests) -> None:
    sealed.open(HERE, by_hpke(replace(REQUEST, wants_session=True)))
    session = Session(REQUEST)
    second = replace(REQUEST, request_id=b"j" * 16)
    assert sealed.open(HERE, session.seal(HERE, second)) == second
    for again in (second, REQUEST):
        with pytest.raises(ReplayedRequest):
            sealed.open(HERE, session.seal(HERE, again))


def test_no_session_begins_unless_it_was_asked_for(sealed: SealedRequests) -> None:
    sealed.open(HERE, by_hpke(REQUEST))
    with pytest.raises(UnknownHpkeKey):
        sealed.open(HERE, Session(REQUEST).seal(HERE, replace(REQUEST, request_id=b"j" * 16)))


def test_a_session_begins_no_other(sealed: SealedRequests) -> None:
    sealed.open(HERE, by_hpke(replace(REQUEST, wants_session=True)))
    second = replace(REQUEST, request_id=b"j" * 16, wants_session=True)
    sealed.open(HERE, Session(REQUEST).seal(HERE, second))
    with pytest.raises(UnknownHpkeKey):
        sealed.open(HERE, Session(second).seal(HERE, replace(REQUEST, request_id=b"l" * 16)))


def test_the_place_of_a_session_cannot_be_taken(sealed: SealedRequests, clock: Clock) -> None:
    sealed.open(HERE, by_hpke(replace(REQUEST, wants_session=True)))
    clock.now_s += 600  # its id is remembered no more, and whoever stands between has seen it
    later = replace(REQUEST, time_ms=int(clock.now_s * 1000))
    with pytest.raises(ReplayedRequest):
        sealed.open(HERE, by_hpke(replace(later, response_key=b"e" * 32, wants_session=True)))
    second = replace(later, request_id=b"j" * 16)
    assert sealed.open(HERE, Session(REQUEST).seal(HERE, second)) == second


def test_a_replay_begins_no_session(sealed: SealedRequests) -> None:
    """Nor does one that is too old: what it left behind would last longer than it may itself."""
    body = by_hpke(replace(REQUEST, wants_session=True, time_ms=1))
    with pytest.raises(StaleRequest):
        sealed.open(HERE, body)
    with pytest.raises(UnknownHpkeKey):
        sealed.open(HERE, Session(REQUEST).seal(HERE, REQUEST))


def test_the_session_that_was_used_longest_ago_ends(
    sealed: SealedRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_requests, "MAX_SESSIONS", 2)
    firsts = [replace(REQUEST, request_id=bytes([n]) * 16, wants_session=True) for n in range(3)]
    ids = iter(range(100, 200))

    def is_open(number: int) -> bool:
        request = replace(REQUEST, request_id=bytes([next(ids)]) * 16)
        try:
            return bool(sealed.open(HERE, Session(firsts[number]).seal(HERE, request)))
        except UnknownHpkeKey:
            return False

    sealed.open(HERE, by_hpke(firsts[0]))
    sealed.open(HERE, by_hpke(firsts[1]))
    assert is_open(0)
    sealed.open(HERE, by_hpke(firsts[2]))
    assert [is_open(number) for number in range(3)] == [True, False, True]
