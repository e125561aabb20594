"""Collateral: what Intel publishes about platforms, without which no quote can be judged.

From a file (a machine without a network), from a caching service (PCCS), or, for the simulated
TEE alone, minted on the spot.
"""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import dcap_qvl
from cryptography import x509

from torchkeep.client.errors import CollateralError
from torchkeep.client.policy import Policy
from torchkeep.runtime import simulated_tee

FETCH_TIMEOUT_S = 30
KEPT_S = 3600  # how long collateral of a service is used again


class CollateralSource(Protocol):
    """Where collateral comes from; `name` is for people."""

    name: str

    def text(self, quote: bytes) -> str:
        """Collateral for this quote, as dcap-qvl's JSON. Raises CollateralError. May block."""
        ...


class CollateralFile:
    """JSON that was fetched before, by dcap-qvl or this module's `CollateralService`."""

    def __init__(self, path: Path) -> None:
        self.name = f"from {path}"
        self._path = path

    def text(self, quote: bytes) -> str:
        try:
            return self._path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CollateralError(f"{self._path} cannot be read: {error}") from error


class CollateralService:
    """A PCCS: Intel's own service, or a cache of it. Kept for an hour, platform by platform.

    No longer than it lasts: by then the service may have newer.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = f"from {url}"
        self._url = url
        self._clock = clock
        self._kept: dict[str, tuple[float, str]] = {}

    def text(self, quote: bytes) -> str:
        platform = _platform(quote)
        until, text = self._kept.get(platform, (0.0, ""))
        if self._clock() < until:
            return text
        # A thread of its own: the caller's may run an event loop already.
        with ThreadPoolExecutor(1) as thread:
            text = thread.submit(asyncio.run, self._fetch(quote)).result()
        self._kept[platform] = (self._clock() + _keep_s(text), text)
        return text

    async def _fetch(self, quote: bytes) -> str:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                found = await dcap_qvl.get_collateral(self._url, quote)
        except (ValueError, RuntimeError, TimeoutError) as error:
            raise CollateralError(f"{self._url}: {_one_line(error) or 'no answer'}") from error
        return str(found.to_json())


class SimulatedCollateral:
    """SIMULATED: for quotes of the simulated TEE, and no others."""

    name = "simulated"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    def text(self, quote: bytes) -> str:
        return simulated_tee.collateral(self._clock())


class NoCollateral:
    """Nobody said where it is."""

    name = "none"

    def text(self, quote: bytes) -> str:
        raise CollateralError(
            "none was given: say where it is under `collateral:` in the policy, or by --collateral"
        )


def collateral_source(policy: Policy) -> CollateralSource:
    """What the policy says."""
    if policy.collateral_file is not None:
        return CollateralFile(policy.collateral_file)
    if policy.pccs_url is not None:
        return CollateralService(policy.pccs_url)
    return NoCollateral()


@dataclass(frozen=True, slots=True)
class Collateral:
    """Collateral that could be read; `parsed` is dcap-qvl's. Its signatures are not checked yet."""

    parsed: dcap_qvl.QuoteCollateralV3
    issued: datetime  # of its latest part, UTC
    expires: datetime  # of its first part to expire, UTC


def read_collateral(text: str) -> Collateral:
    """Raises CollateralError."""
    try:
        parsed = dcap_qvl.QuoteCollateralV3.from_json(text)
        parts = [json.loads(signed) for signed in (parsed.tcb_info, parsed.qe_identity)]
        lists = [x509.load_der_x509_crl(crl) for crl in (parsed.root_ca_crl, parsed.pck_crl)]
        issued = [_date(part["issueDate"]) for part in parts]
        issued += [one.last_update_utc for one in lists]
        expires = [_date(part["nextUpdate"]) for part in parts]
        expires += [one.next_update_utc for one in lists if one.next_update_utc is not None]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CollateralError(f"it cannot be read: {_one_line(error)}") from error
    return Collateral(parsed, max(issued), min(expires))


def _date(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _keep_s(text: str) -> float:
    try:
        left = read_collateral(text).expires - datetime.now(UTC)
    except CollateralError:  # whoever judges it says so
        return 0.0
    return min(KEPT_S, left.total_seconds())


def _platform(quote: bytes) -> str:
    try:
        parsed = dcap_qvl.parse_quote(quote)
        return f"{parsed.fmspc()} {parsed.ca()}"
    except ValueError as error:
        raise CollateralError(f"the quote names no platform: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
