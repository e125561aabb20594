"""Evidence judged: what is right passes, and each lie fails at the check that is meant for it."""

import base64
import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attested import CONFIG, MODEL, NONCE, AttestedServer, new_key, policy_for, spki
from genuine_quotes import QUOTES, genuine

from torchkeep.client.collateral import CollateralFile, CollateralSource
from torchkeep.client.errors import CollateralError
from torchkeep.client.policy import MEASUREMENTS, Policy
from torchkeep.client.verdict import Verdict
from torchkeep.client.verifier import verify_certificate, verify_document
from torchkeep.runtime import simulated_tee
from torchkeep.runtime.claims import ModelClaim, report_data
from torchkeep.runtime.ratls import make_certificate

NOW = 1_800_000_000.0
DAY_S = 86400
NOTHING_ASKED = Policy(measurements={}, config=None, models=None)
SERVER = AttestedServer()


class Given:
    """Collateral that a test chose."""

    name = "given"

    def __init__(self, text: str) -> None:
        self._text = text

    def text(self, quote: bytes) -> str:
        return self._text


class Untouched:
    """Collateral that nobody may read."""

    name = "untouched"

    def text(self, quote: bytes) -> str:
        raise AssertionError("the collateral was read")


def judge(
    document: bytes,
    policy: Policy | None = None,
    *,
    nonce: bytes = NONCE,
    tls_key: bytes | None = None,
    collateral: CollateralSource | None = None,
    now: float = NOW,
) -> Verdict:
    return verify_document(
        document,
        policy or policy_for(SERVER),
        nonce=nonce,
        tls_key=tls_key or spki(SERVER.key),
        collateral=collateral,
        now=now,
    )


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.failed]


def test_an_honest_server_passes_every_check() -> None:
    verdict = judge(SERVER.document())
    assert verdict.holds
    assert [check.name for check in verdict.checks] == [
        *["format", "tee", "debug", "collateral", "quote", "tcb", "advisories", *MEASUREMENTS],
        *["report_data", "nonce", "key", "tls_key", "config", "models"],
    ]
    assert verdict.is_simulated
    assert verdict.public_key == spki(SERVER.key)
    assert "SIMULATED" in verdict.checks[1].text


def test_each_check_has_a_line_of_text() -> None:
    for verdict in (judge(SERVER.document()), judge(b"{}"), judge(SERVER.document(b"x" * 32))):
        assert all(check.text and "\n" not in check.text for check in verdict.checks)


# Attacks: what is done, and the one check that fails.


def test_replayed_document() -> None:
    assert failed(judge(SERVER.document(b"an old nonce, seen before"))) == ["nonce"]


def test_evidence_for_another_tls_key() -> None:
    assert failed(judge(SERVER.document(), tls_key=spki(new_key()))) == ["tls_key"]


def test_document_with_the_key_of_somebody_in_between() -> None:
    # He shows his own key beside genuine evidence, so that it fits his certificate.
    mine = new_key()
    document = SERVER.document(public_key=base64.b64encode(spki(mine)).decode())
    assert failed(judge(document, tls_key=spki(mine))) == ["key"]


def test_claims_with_the_key_of_somebody_in_between() -> None:
    mine = AttestedServer()
    claims = base64.b64encode(mine.claims(NONCE).encode()).decode()
    key = base64.b64encode(spki(mine.key)).decode()
    document = SERVER.document(public_key=key, claims=claims)
    assert failed(judge(document, tls_key=spki(mine.key))) == ["report_data"]


def test_debug_is_refused_before_collateral_is_read() -> None:
    attributes = simulated_tee.SEPT_VE_DISABLE | 1
    server = replace(SERVER, quoting={"td_attributes": attributes})
    verdict = judge(server.document(), collateral=Untouched())
    assert failed(verdict) == ["debug"]
    assert verdict.checks[-1].name == "debug"


def test_expired_collateral() -> None:
    old = Given(simulated_tee.collateral(NOW - 31 * DAY_S))
    assert failed(judge(SERVER.document(), collateral=old)) == ["collateral"]


def test_collateral_of_the_future() -> None:
    early = Given(simulated_tee.collateral(NOW + DAY_S))
    assert failed(judge(SERVER.document(), collateral=early)) == ["collateral"]


@pytest.mark.parametrize("text", ["", "{}", '{"tcb_info": 1}', "[" * 10_000])
def test_collateral_that_is_none(text: str) -> None:
    assert failed(judge(SERVER.document(), collateral=Given(text))) == ["collateral"]


@pytest.mark.parametrize("part", ["tcb_info", "qe_identity", "root_ca_crl", "pck_crl"])
def test_collateral_with_a_part_of_another_root(part: str) -> None:
    ours = json.loads(simulated_tee.collateral(NOW))
    ours[part] = json.loads(simulated_tee.collateral(NOW + 1, seed=b"another"))[part]
    assert failed(judge(SERVER.document(), collateral=Given(json.dumps(ours)), now=NOW + 2)) == [
        "quote"
    ]


def test_quote_under_another_root() -> None:
    server = replace(SERVER, quoting={"seed": b"another"})
    assert failed(judge(server.document())) == ["quote"]
    theirs = Given(simulated_tee.collateral(NOW, seed=b"another"))
    assert failed(judge(server.document(), collateral=theirs)) == ["quote"]


def test_simulated_quote_that_says_it_is_genuine() -> None:
    server = replace(SERVER, tee="tdx")
    minted = Given(simulated_tee.collateral(NOW))
    assert failed(judge(server.document(), collateral=minted)) == ["quote"]


def test_simulated_quote_at_a_default_policy() -> None:
    verdict = judge(SERVER.document(), policy_for(SERVER, allow_simulated=False))
    assert failed(verdict) == ["tee"]
    assert "quote" not in [check.name for check in verdict.checks]


def test_document_that_names_another_tee_than_its_claims() -> None:
    assert failed(judge(SERVER.document(tee="tdx"))) == ["tee"]
    assert failed(judge(replace(SERVER, tee="sgx").document())) == ["tee"]


@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded"])
def test_outdated_platform(status: str) -> None:
    outdated = Given(simulated_tee.collateral(NOW, tcb_status=status))
    assert failed(judge(SERVER.document(), collateral=outdated)) == ["tcb"]
    tolerant = policy_for(SERVER, tcb_statuses=frozenset({"UpToDate", status}))
    assert judge(SERVER.document(), tolerant, collateral=outdated).holds


@pytest.mark.parametrize(
    "revoked",
    [
        simulated_tee.collateral(NOW, tcb_status="Revoked"),
        simulated_tee.collateral(NOW, is_platform_revoked=True),
    ],
)
def test_revoked_platform(revoked: str) -> None:
    tolerant = policy_for(SERVER, tcb_statuses=frozenset({"UpToDate", "Revoked"}))
    assert failed(judge(SERVER.document(), tolerant, collateral=Given(revoked))) == ["quote"]


def test_advisory_that_the_policy_does_not_name() -> None:
    advised = Given(simulated_tee.collateral(NOW, advisory_ids=["SIMULATED-1", "SIMULATED-2"]))
    verdict = judge(SERVER.document(), collateral=advised)
    assert failed(verdict) == ["advisories"]
    assert "SIMULATED-1, SIMULATED-2" in verdict.failed[0].text
    for accepted in (frozenset({"SIMULATED-1", "SIMULATED-2"}), None):
        policy = policy_for(SERVER, advisories=accepted)
        assert judge(SERVER.document(), policy, collateral=advised).holds


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_another_measurement(name: str) -> None:
    other = b"\x77" * 48
    rt_mrs = [simulated_tee.measurement(f"RTMR{number}") for number in range(4)]
    if name.startswith("rtmr"):
        rt_mrs[int(name[-1])] = other
    quoting: dict[str, Any] = {"rt_mrs": rt_mrs}
    if not name.startswith("rtmr"):
        quoting[name] = other
    document = replace(SERVER, quoting=quoting).document()
    verdict = judge(document)
    assert failed(verdict) == [name]
    assert other.hex() in verdict.failed[0].text
    measurements = {**policy_for(SERVER).measurements, name: frozenset({b"\x78" * 48, other})}
    assert judge(document, policy_for(SERVER, measurements=measurements)).holds
    del measurements[name]
    verdict = judge(document, policy_for(SERVER, measurements=measurements))
    assert verdict.holds
    assert f"any {name}" in next(one.text for one in verdict.checks if one.name == "unnamed")


def test_other_configuration() -> None:
    server = replace(SERVER, config=b"\x34" * 32)
    assert failed(judge(server.document())) == ["config"]
    assert judge(server.document(), policy_for(SERVER, config=None)).holds


@pytest.mark.parametrize(
    "served",
    [
        ModelClaim("echo", "1.0", b"\x45" * 32),
        ModelClaim("echo", "2.0", MODEL.digest),
        ModelClaim("other", "1.0", MODEL.digest),
    ],
)
def test_another_model(served: ModelClaim) -> None:
    for models in [(served,), (MODEL, served)]:
        server = replace(SERVER, models=models)
        verdict = judge(server.document())
        assert failed(verdict) == ["models"]
        assert f"{served.name} {served.version}" in verdict.failed[0].text
        assert judge(server.document(), policy_for(SERVER, models=None)).holds


def test_names_from_the_server_do_nothing_to_a_terminal() -> None:
    served = tuple(ModelClaim(f"\x1b[2J{n}\n", "1.0", bytes(32)) for n in range(10))
    verdict = judge(replace(SERVER, models=served).document())
    [check] = verdict.failed
    assert check.text.isprintable()
    assert check.text.startswith("not in the policy: ?[2J0? 1.0 (000000000000...), ")
    assert check.text.endswith(", 2 more")


def test_fewer_models_than_the_policy_names_are_served() -> None:
    assert judge(replace(SERVER, models=()).document()).holds


def test_document_without_models() -> None:
    claims = replace(SERVER.claims(NONCE), models=None).encode()
    quote = SERVER.quote(claims)
    changes = {
        "claims": base64.b64encode(claims).decode(),
        "quote": base64.b64encode(quote).decode(),
    }
    assert failed(judge(SERVER.document(**changes))) == ["models"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    server = replace(SERVER, config=b"\x34" * 32, models=(replace(MODEL, digest=bytes(32)),))
    outdated = Given(simulated_tee.collateral(NOW, tcb_status="OutOfDate"))
    verdict = judge(server.document(b"x" * 32), collateral=outdated, tls_key=spki(new_key()))
    assert failed(verdict) == ["tcb", "nonce", "tls_key", "config", "models"]


# Offset in a quote -> what is there, and the checks that may refuse a flipped bit of it.
FIELDS = {
    0: ("version", {"format"}),
    2: ("attestation key type", {"quote"}),
    4: ("TEE type", {"format"}),
    12: ("QE vendor", {"quote"}),
    28: ("user data", {"quote"}),
    48: ("TEE_TCB_SVN", {"quote"}),
    64: ("MRSEAM", {"quote"}),
    112: ("MRSIGNERSEAM", {"quote"}),
    160: ("SEAMATTRIBUTES", {"quote"}),
    168: ("TDATTRIBUTES", {"debug"}),
    169: ("TDATTRIBUTES, reserved", {"quote"}),
    176: ("XFAM", {"quote"}),
    184: ("MRTD", {"quote"}),
    232: ("MRCONFIGID", {"quote"}),
    280: ("MROWNER", {"quote"}),
    328: ("MROWNERCONFIG", {"quote"}),
    376: ("RTMR0", {"quote"}),
    424: ("RTMR1", {"quote"}),
    472: ("RTMR2", {"quote"}),
    520: ("RTMR3", {"quote"}),
    568: ("REPORTDATA", {"quote"}),
    632: ("length of the signature", {"quote"}),
    636: ("signature", {"quote"}),
    700: ("attestation key", {"quote"}),
    764: ("certification type", set()),  # not signed, and dcap-qvl takes all for one type
    770: ("QE report", {"quote"}),
    1090: ("QE report data", {"quote"}),
    1154: ("QE report signature", {"quote"}),
    1220: ("authentication data", {"quote"}),
    1252: ("chain type", {"quote"}),
    1600: ("PCK certificate", {"quote"}),
}


@pytest.mark.parametrize(("at", "expected"), FIELDS.items())
def test_flipped_bit_of_a_quote(at: int, expected: tuple[str, set[str]]) -> None:
    claims = SERVER.claims(NONCE).encode()
    quote = bytearray(SERVER.quote(claims))
    quote[at] ^= 1
    verdict = judge(SERVER.document(quote=base64.b64encode(quote).decode()))
    assert set(failed(verdict)) == expected[1], expected[0]


def test_every_flipped_bit_of_the_claims_is_refused() -> None:
    claims = SERVER.claims(NONCE).encode()
    quote = base64.b64encode(SERVER.quote(claims)).decode()
    for at in range(len(claims)):
        flipped = bytearray(claims)
        flipped[at] ^= 1
        encoded = base64.b64encode(flipped).decode()
        verdict = judge(SERVER.document(quote=quote, claims=encoded))
        assert failed(verdict)[0] in {"format", "report_data", "tee"}


def test_hash_in_hexadecimal_digits_is_taken_as_old_agents_quote_it() -> None:
    claims = SERVER.claims(NONCE).encode()
    words = report_data(claims)[:32].hex().encode()
    quote = base64.b64encode(simulated_tee.mint_quote(words)).decode()
    assert judge(SERVER.document(quote=quote)).holds
    quote = base64.b64encode(simulated_tee.mint_quote(words.upper())).decode()
    assert failed(judge(SERVER.document(quote=quote))) == ["report_data"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "no JSON"),
        (b"[]", "format"),
        (b'{"format": "torchkeep-attestation-2"}', "format"),
        (SERVER.document(tee=None), "tee"),
        (SERVER.document(quote=1), "quote"),
        (SERVER.document(quote="*"), "quote"),
        (SERVER.document(quote="AAAA"), "only 3 bytes"),
        (SERVER.document(claims="AAAA"), "no CBOR map"),
        (SERVER.document(public_key="\u00e9"), "public_key"),
        (b"[" * 100_000, "no JSON"),
        (b" " * (5 << 20), "more than"),
    ],
)
def test_what_is_no_document_is_named(document: bytes, reason: str) -> None:
    verdict = judge(document)
    assert failed(verdict) == ["format"]
    assert reason in verdict.failed[0].text


# Certificates.


def at(now: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now, datetime.UTC)


def test_certificate_of_an_honest_server() -> None:
    verdict = verify_certificate(SERVER.certificate(at(NOW)), policy_for(SERVER), now=NOW)
    assert verdict.holds
    assert verdict.public_key == spki(SERVER.key)


def test_certificate_that_is_too_old() -> None:
    certificate = SERVER.certificate(at(NOW - 2 * DAY_S))
    verdict = verify_certificate(certificate, policy_for(SERVER), now=NOW)
    assert failed(verdict) == ["validity"]


def test_certificate_with_evidence_of_another_key() -> None:
    claims = SERVER.claims().encode()
    thief = replace(SERVER, key=new_key())
    stolen = make_certificate(thief.key, SERVER.quote(claims), claims, at(NOW))
    assert failed(verify_certificate(stolen, policy_for(SERVER), now=NOW)) == ["key"]


def test_certificate_without_evidence() -> None:
    assert failed(verify_certificate(b"", policy_for(SERVER))) == ["format"]


# Genuine quotes: at these times, by the README beside them.


def judge_genuine(name: str, now: float, collateral: CollateralSource | None = None) -> Verdict:
    """Its report data is not about our claims; all before that is what is asked."""
    server = AttestedServer(tee="tdx", config=CONFIG)
    document = server.document(quote=base64.b64encode(genuine(name)).decode())
    source = collateral or CollateralFile(QUOTES / f"{name}_collateral.json")
    return judge(document, NOTHING_ASKED, collateral=source, now=now)


def test_genuine_quote_verifies_up_to_the_claims() -> None:
    verdict = judge_genuine("tdx_quote", 1750414563)
    assert failed(verdict) == ["report_data"]
    assert "the platform is UpToDate" in [check.text for check in verdict.checks]
    assert "certified by Intel" in next(c.text for c in verdict.checks if c.name == "quote")


def test_genuine_quote_is_refused_when_its_collateral_is_old() -> None:
    assert failed(judge_genuine("tdx_quote", NOW)) == ["collateral"]


def test_genuine_quote_of_no_known_platform_is_refused() -> None:
    assert failed(judge_genuine("tdx_quote_outdated", 1771500000)) == ["quote"]


def test_genuine_quote_with_debug_is_refused_before_collateral_is_read() -> None:
    assert failed(judge_genuine("tdx_quote_debug_td.dat", NOW, Untouched())) == ["debug"]


def test_collateral_that_nobody_names() -> None:
    server = AttestedServer(tee="tdx")
    verdict = judge(server.document(), policy_for(server))
    assert failed(verdict) == ["collateral"]
    assert "--collateral" in verdict.failed[0].text


def test_collateral_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CollateralError, match="cannot be read"):
        CollateralFile(tmp_path / "none.json").text(b"")
