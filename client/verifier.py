"""Judges what a server shows: check by check, in an order in which nothing unproven is built on.

First what can be read without trusting anybody, DEBUG among it; then, with collateral, who signed
the quote; then the policy on what the quote measured; and only when the quote is known to hold
the hash of the claims, what they claim. Checks go on after one that fails wherever the next does
not rest on it, so that all of what is wrong is told at once.
"""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import dcap_qvl

from torchkeep.client.collateral import (
    Collateral,
    CollateralSource,
    SimulatedCollateral,
    collateral_source,
    read_collateral,
)
from torchkeep.client.errors import CollateralError
from torchkeep.client.evidence import (
    EvidenceFormatError,
    Shown,
    read_attested_certificate,
    read_document,
)
from torchkeep.client.policy import MEASUREMENTS, Policy, measured
from torchkeep.client.verdict import Verdict
from torchkeep.runtime import simulated_tee
from torchkeep.runtime.claims import Claims, ModelClaim, report_data
from torchkeep.runtime.evidence import in_words

TDX = "tdx"
SIMULATED = "simulated"
MODELS_TOLD = 8  # in the line of a check


def verify_document(
    document: bytes,
    policy: Policy,
    *,
    nonce: bytes,
    tls_key: bytes | None,
    collateral: CollateralSource | None = None,
    now: float | None = None,
) -> Verdict:
    """Judge the answer of `GET /attestation?nonce=`.

    `tls_key` is the SubjectPublicKeyInfo of the peer on the connection that it came by; None if
    that connection is not what is judged, as behind a proxy that ends TLS.
    """
    verdict = Verdict()
    try:
        shown = read_document(document)
    except EvidenceFormatError as error:
        verdict.check("format", False, "", str(error))
        return verdict
    if _is_quote_proven(verdict, shown, policy, collateral, now):
        claims = shown.claims
        verdict.check(
            "nonce",
            claims.nonce == nonce,
            "it was made for this very question",
            "it was made for another question: an old document, replayed",
        )
        _check_key(verdict, shown)
        if tls_key is not None:
            verdict.check(
                "tls_key",
                tls_key == shown.public_key,
                "the connection ends where the attested key is",
                "the connection ends at another key: somebody in between ends TLS",
            )
        _check_config(verdict, claims, policy)
        _check_models(verdict, claims, policy)
    return verdict


def verify_certificate(
    der: bytes,
    policy: Policy,
    *,
    collateral: CollateralSource | None = None,
    now: float | None = None,
) -> Verdict:
    """Judge the certificate of an attested listener, which answers no question of ours.

    It proves that its key was attested once; a document proves that it is so now.
    """
    verdict = Verdict()
    try:
        shown = read_attested_certificate(der)
    except EvidenceFormatError as error:
        verdict.check("format", False, "", str(error))
        return verdict
    if _is_quote_proven(verdict, shown, policy, collateral, now):
        _check_key(verdict, shown)
        _check_validity(verdict, shown, now)
        _check_config(verdict, shown.claims, policy)
    return verdict


def _is_quote_proven(
    verdict: Verdict,
    shown: Shown,
    policy: Policy,
    source: CollateralSource | None,
    now: float | None,
) -> bool:
    """All checks up to report data; whether the claims may be believed."""
    at = time.time() if now is None else now
    verdict.quote, verdict.claims = shown.quote, shown.claims
    verdict.public_key = shown.public_key
    verdict.check("format", True, f"a TDX quote, version {shown.quote.version}, and its claims")
    is_allowed = _check_tee(verdict, shown, policy)
    is_private = verdict.check(
        "debug",
        not shown.quote.report.is_debug,
        "DEBUG is off: the host cannot read the memory",
        "DEBUG is on: the host reads the memory at will",
    )
    if not (is_allowed and is_private):
        return False
    is_simulated = shown.tee == SIMULATED
    if source is None:
        source = SimulatedCollateral(lambda: at) if is_simulated else collateral_source(policy)
    collateral = _current_collateral(verdict, shown, source, at)
    if collateral is None:
        return False
    root = simulated_tee.root_certificate() if is_simulated else None
    if not _check_signature(verdict, shown, policy, collateral, root, at):
        return False
    _check_measurements(verdict, shown, policy)
    return _check_report_data(verdict, shown)


def _check_tee(verdict: Verdict, shown: Shown, policy: Policy) -> bool:
    if shown.tee != shown.claims.tee:
        return verdict.check(
            "tee", False, "", f"the document says {shown.tee!r}, its claims {shown.claims.tee!r}"
        )
    if shown.tee == SIMULATED:
        return verdict.check(
            "tee",
            policy.allow_simulated,
            "SIMULATED: this proves nothing, and the policy allows it",
            "it is simulated, which proves nothing",
        )
    return verdict.check("tee", shown.tee == TDX, "Intel TDX", f"{shown.tee!r} is not known")


def _current_collateral(
    verdict: Verdict, shown: Shown, source: CollateralSource, now: float
) -> Collateral | None:
    try:
        collateral = read_collateral(source.text(shown.quote.raw))
    except CollateralError as error:
        verdict.check("collateral", False, "", str(error))
        return None
    time_now = datetime.fromtimestamp(now, UTC)
    period = f"{source.name}, from {collateral.issued:%F %T} to {collateral.expires:%F %T} UTC"
    is_current = verdict.check(
        "collateral",
        collateral.issued <= time_now <= collateral.expires,
        period,
        f"not of this time ({time_now:%F %T} UTC): {period}",
    )
    return collateral if is_current else None


def _check_signature(
    verdict: Verdict,
    shown: Shown,
    policy: Policy,
    collateral: Collateral,
    root: bytes | None,
    now: float,
) -> bool:
    try:
        if root is None:
            found = dcap_qvl.verify(shown.quote.raw, collateral.parsed, int(now))
        else:
            found = dcap_qvl.verify_with_root_ca(shown.quote.raw, collateral.parsed, root, int(now))
    except ValueError as error:
        return verdict.check("quote", False, "", " ".join(str(error).split()))
    by_whom = "Intel" if root is None else "the simulated root, which anybody can be"
    verdict.check("quote", True, f"signed by a platform that is certified by {by_whom}")
    accepted = ", ".join(sorted(policy.tcb_statuses))
    # dcap-qvl returns whatever is not revoked: to accept it or not is left to us.
    verdict.check(
        "tcb",
        found.status in policy.tcb_statuses,
        f"the platform is {found.status}",
        f"the platform is {found.status}; accepted is {accepted}",
    )
    unwanted = [] if policy.advisories is None else set(found.advisory_ids) - policy.advisories
    verdict.check(
        "advisories",
        not unwanted,
        f"{', '.join(found.advisory_ids) or 'none'} apply to the platform",
        f"the policy does not accept {', '.join(sorted(unwanted))}",
    )
    return True


def _check_measurements(verdict: Verdict, shown: Shown, policy: Policy) -> None:
    values = measured(shown.quote.report)
    for name, allowed in policy.measurements.items():
        verdict.check(
            name,
            values[name] in allowed,
            "as the policy names it",
            f"{values[name].hex()} is not what the policy names",
        )
    if unnamed := [name for name in MEASUREMENTS if name not in policy.measurements]:
        verdict.check("unnamed", True, f"the policy takes any {', '.join(unnamed)}")


def _check_report_data(verdict: Verdict, shown: Shown) -> bool:
    expected = report_data(shown.claims_buffer)
    found = shown.quote.report.report_data
    # Attestation agents before release 0.21 quote a hash as its hexadecimal digits.
    return verdict.check(
        "report_data",
        found in (expected, in_words(expected)),
        "the quote holds the hash of the claims",
        "the quote is not about these claims",
    )


def _check_key(verdict: Verdict, shown: Shown) -> None:
    verdict.check(
        "key",
        hashlib.sha256(shown.public_key).digest() == shown.claims.public_key_hash,
        "the claims are about the key that is shown",
        "the claims are about another key than is shown",
    )


def _check_validity(verdict: Verdict, shown: Shown, now: float | None) -> None:
    assert shown.valid is not None, "it is a certificate"
    at = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    start, end = shown.valid
    period = f"from {start:%F %T} to {end:%F %T} UTC"
    verdict.check("validity", start <= at <= end, period, f"the certificate is valid {period}")


def _check_config(verdict: Verdict, claims: Claims, policy: Policy) -> None:
    if policy.config is None:
        verdict.check("config", True, "the policy takes any configuration")
        return
    verdict.check(
        "config",
        claims.config in policy.config,
        "configuration and sandbox as the policy names them",
        f"{claims.config.hex()} is not what the policy names: another configuration",
    )


def _check_models(verdict: Verdict, claims: Claims, policy: Policy) -> None:
    if policy.models is None:
        verdict.check("models", True, "the policy takes any model")
        return
    if claims.models is None:
        verdict.check("models", False, "", "the server does not say which models it serves")
        return
    others = [one for one in claims.models if one not in policy.models]
    verdict.check(
        "models",
        not others,
        f"{_models_text(claims.models)}: as the policy names",
        f"not in the policy: {_models_text(others)}",
    )


def _models_text(models: Sequence[ModelClaim]) -> str:
    texts = [f"{one.name} {one.version} ({one.digest.hex()[:12]}...)" for one in models]
    more = [f"{len(texts) - MODELS_TOLD} more"] if len(texts) > MODELS_TOLD else []
    return ", ".join(texts[:MODELS_TOLD] + more) or "none"
