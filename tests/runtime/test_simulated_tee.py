"""The simulated TEE, judged by the verifier of real quotes; under its own root only."""

import dcap_qvl
import pytest

from torchkeep.runtime import simulated_tee
from torchkeep.runtime.quote import parse_quote

NOW = 1_800_000_000
DAY_S = 86400
REPORT_DATA = bytes(range(64))


def status(quote: bytes, collateral: str, now: int = NOW, root: bytes | None = None) -> str:
    parsed = dcap_qvl.QuoteCollateralV3.from_json(collateral)
    root = simulated_tee.root_certificate() if root is None else root
    return dcap_qvl.verify_with_root_ca(quote, parsed, root, now).status


def test_a_quote_verifies_under_its_root() -> None:
    quote = simulated_tee.mint_quote(REPORT_DATA)
    assert status(quote, simulated_tee.collateral(NOW)) == "UpToDate"


def test_its_fields_are_read_as_minted() -> None:
    measured = [bytes([number]) * 48 for number in range(6)]
    quote = simulated_tee.mint_quote(
        REPORT_DATA, mr_td=measured[0], rt_mrs=measured[1:5], mr_config_id=measured[5]
    )
    report = parse_quote(quote).report
    assert (report.mr_td, *report.rt_mrs, report.mr_config_id) == tuple(measured)
    assert report.report_data == REPORT_DATA
    assert not report.is_debug


def test_measurements_stay_the_same() -> None:
    first, second = (parse_quote(simulated_tee.mint_quote(REPORT_DATA)) for _ in range(2))
    assert first.report == second.report


def test_intel_did_not_sign_it() -> None:
    collateral = dcap_qvl.QuoteCollateralV3.from_json(simulated_tee.collateral(NOW))
    with pytest.raises(ValueError, match="Verification failed"):
        dcap_qvl.verify(simulated_tee.mint_quote(REPORT_DATA), collateral, NOW)


def test_another_seed_is_another_root() -> None:
    quote = simulated_tee.mint_quote(REPORT_DATA, seed=b"another")
    collateral = simulated_tee.collateral(NOW, seed=b"another")
    assert status(quote, collateral, root=simulated_tee.root_certificate(b"another")) == "UpToDate"
    for other in (collateral, simulated_tee.collateral(NOW)):
        with pytest.raises(ValueError, match="Verification failed"):
            status(quote, other)


@pytest.mark.parametrize("tcb_status", ["OutOfDate", "SWHardeningNeeded"])
def test_tcb_status_is_as_asked(tcb_status: str) -> None:
    collateral = simulated_tee.collateral(NOW, tcb_status=tcb_status, advisory_ids=["SIMULATED-1"])
    assert status(simulated_tee.mint_quote(REPORT_DATA), collateral) == tcb_status


@pytest.mark.parametrize(
    ("collateral", "now", "reason"),
    [
        (simulated_tee.collateral(NOW, tcb_status="Revoked"), NOW, "Revoked"),
        (simulated_tee.collateral(NOW, is_platform_revoked=True), NOW, "CertRevoked|chain"),
        (simulated_tee.collateral(NOW), NOW + 31 * DAY_S, "Expired"),
        (simulated_tee.collateral(NOW), NOW - DAY_S, "future"),
    ],
)
def test_what_is_wrong_is_refused(collateral: str, now: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        status(simulated_tee.mint_quote(REPORT_DATA), collateral, now)


def test_debug_is_minted_and_refused() -> None:
    attributes = simulated_tee.SEPT_VE_DISABLE | 1
    quote = simulated_tee.mint_quote(REPORT_DATA, td_attributes=attributes)
    assert parse_quote(quote).report.is_debug
    with pytest.raises(ValueError, match="Debug"):
        status(quote, simulated_tee.collateral(NOW))
