"""Whom a client trusts now, and until when: evidence is asked for again when it is too old.

`Trust` and `AsyncTrust` differ in how they wait, and in nothing else.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from torchkeep.client.attesting import Seen, Where, ask, ask_async, judge_seen
from torchkeep.client.collateral import CollateralSource, collateral_source
from torchkeep.client.errors import NotVerified
from torchkeep.client.policy import Policy
from torchkeep.client.sealing import Sealer
from torchkeep.client.verdict import Verdict
from torchkeep.runtime.claims import Claims, ModelClaim

log = logging.getLogger("torchkeep.client")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A server that satisfied the policy."""

    public_key: bytes  # SubjectPublicKeyInfo of the attested key
    claims: Claims
    models: frozenset[ModelClaim] | None  # what may answer; None is any
    verdict: Verdict
    until: float  # of the monotonic clock
    sealer: Sealer  # for its HPKE key; it keeps a session


class Judgement:
    """What both share: the policy, and the last that satisfied it."""

    def __init__(
        self,
        where: Where,
        policy: Policy,
        source: CollateralSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.where = where
        self._policy = policy
        # One for the client's life: it keeps what a service answered.
        self._source = source or (None if policy.allow_simulated else collateral_source(policy))
        self.clock = clock
        self._trusted: Trusted | None = None

    def forget(self, trusted: Trusted) -> None:
        """Ask for evidence again before anything else is sent, unless somebody did already."""
        if self._trusted is trusted:
            self._trusted = None

    def current(self) -> Trusted | None:
        """None where evidence must be asked for."""
        if self._trusted is not None and self.clock() < self._trusted.until:
            return self._trusted
        return None

    def judge(self, seen: Seen, asked_at: float) -> Trusted:
        """Raises NotVerified. May block."""
        verdict = judge_seen(seen, self.where, self._policy, self._source)
        if not verdict.holds:
            self._trusted = None
            raise NotVerified(str(self.where.url), verdict)
        if verdict.is_simulated:
            log.warning("%s shows SIMULATED evidence: it proves nothing", self.where.url)
        assert verdict.claims is not None, "all checks hold"
        until = asked_at + self._policy.max_age_s
        self._trusted = Trusted(
            public_key=verdict.public_key,
            claims=verdict.claims,
            models=self._policy.models,
            verdict=verdict,
            until=until,
            sealer=Sealer(verdict.claims.hpke_key),
        )
        return self._trusted


class Trust:
    """For threads."""

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        self._turn = threading.Lock()

    def trusted(self, *, afresh: bool = False) -> Trusted:
        """Whom to talk to; asks for evidence if need be. Raises NotVerified and Unreachable."""
        with self._turn:
            if not afresh and (current := self.judgement.current()):
                return current
            asked_at = self.judgement.clock()
            return self.judgement.judge(ask(self.judgement.where), asked_at)


class AsyncTrust:
    """For an event loop of asyncio."""

    def __init__(self, judgement: Judgement) -> None:
        self.judgement = judgement
        self._turn = asyncio.Lock()

    async def trusted(self, *, afresh: bool = False) -> Trusted:
        """Whom to talk to; asks for evidence if need be. Raises NotVerified and Unreachable."""
        async with self._turn:
            if not afresh and (current := self.judgement.current()):
                return current
            asked_at = self.judgement.clock()
            seen = await ask_async(self.judgement.where)
            # In a thread: it may ask a service for collateral.
            return await asyncio.to_thread(self.judgement.judge, seen, asked_at)
