"""The broker's policy, evaluated: each key for the guest that it was released for, and no other.

The claims are those of a token of Trustee 0.21 for a TDX guest (attestation-service: EAR; the
claims of the quote as deps/verifier/src/tdx/claims.rs has them).
"""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

Json = dict[str, Any]

OURS = ["default", "models", "digits"]


@pytest.fixture(scope="module")
def measurement(rendered: Any) -> str:
    found = re.search(r"^mr_config_id: ([0-9a-f]{96})$", rendered.said, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def claims(measurement: str) -> Json:
    return {
        "eat_profile": "tag:github.com,2024:confidential-containers/Trustee",
        "iat": 1780000000,
        "submods": {
            "cpu0": {
                "ear.appraisal-policy-id": "default",
                "ear.status": "affirming",
                "ear.trustworthiness-vector": {
                    "configuration": 2,
                    "executables": 3,
                    "hardware": 2,
                },
                "ear.veraison.annotated-evidence": {
                    "init_data": measurement,
                    "report_data": "ab" * 64,
                    "runtime_data_claims": {"nonce": "bm9uY2U=", "tee-pubkey": {"kty": "EC"}},
                    "tdx": {
                        "quote": {
                            "header": {"tee_type": "81000000", "version": "0400"},
                            "body": {
                                "mr_config_id": measurement,
                                "mr_td": "70" * 48,
                                "rtmr_1": "11" * 48,
                                "rtmr_2": "22" * 48,
                            },
                        },
                        "tcb_status": "UpToDate",
                        "td_attributes": {"debug": False, "septve_disable": True},
                    },
                },
            }
        },
    }


@pytest.fixture(scope="module")
def allows(rendered: Any, rego: Any) -> Callable[..., bool]:
    text = (rendered.folder / "kbs-policy.rego").read_text()

    def ask(given: Json, path: list[str] = OURS, plugin: str = "resource") -> bool:
        data = {"plugin": plugin, "resource-path": path, "query": {}, "method": "GET"}
        return bool(rego("policy", text, data).value("policy/allow", given))

    return ask


def in_context(claims: Json, result: bool = True) -> Json:
    """As Trustee after 0.21 hands claims over."""
    summary = {
        "claims": claims,
        "issuer": "https://as.example",
        "policy_ids": ["default"],
        "tee_type": ["tdx"],
        "verification_result": result,
    }
    return {"trust_context": {"attestation_summary": summary, "custom_claims": {}}}


def test_our_guest_gets_its_keys(allows: Any, claims: Json) -> None:
    for given in (claims, in_context(claims)):
        assert allows(given)
        assert allows(given, ["default", "models", "second"])


def test_no_other_resource_is_given_out(allows: Any, claims: Json) -> None:
    for path in (
        ["default", "models", "third"],
        ["other", "models", "digits"],
        ["default", "models"],
        [*OURS, "more"],
        [],
    ):
        assert not allows(claims, path)
    assert not allows(claims, plugin="pki_vault")


def guest(claims: Json) -> Json:
    found: Json = claims["submods"]["cpu0"]
    return found


def evidence(claims: Json) -> Json:
    found: Json = guest(claims)["ear.veraison.annotated-evidence"]
    return found


def as_sample(claims: Json) -> None:
    """The TEE for tests, which claims whatever it likes."""
    quote = evidence(claims).pop("tdx")["quote"]
    evidence(claims)["sample"] = {"quote": quote, "td_attributes": {"debug": False}, "svn": "1"}


CHANGES: dict[str, Callable[[Json], Any]] = {
    "contraindicated": lambda claims: guest(claims).update({"ear.status": "contraindicated"}),
    "warning": lambda claims: guest(claims).update({"ear.status": "warning"}),
    "no status": lambda claims: guest(claims).pop("ear.status"),
    "other initdata": lambda claims: evidence(claims)["tdx"]["quote"]["body"].update(
        mr_config_id="00" * 48
    ),
    "initdata only said": lambda claims: evidence(claims)["tdx"]["quote"]["body"].pop(
        "mr_config_id"
    ),
    "debug": lambda claims: evidence(claims)["tdx"]["td_attributes"].update(debug=True),
    "sample": as_sample,
    "another processor": lambda claims: claims["submods"].update(
        gpu0=claims["submods"].pop("cpu0")
    ),
    "nothing": lambda claims: claims.clear(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_guest_gets_nothing(
    allows: Any, claims: Json, change: Callable[[Json], Any]
) -> None:
    changed = copy.deepcopy(claims)
    change(changed)
    assert not allows(changed)
    assert not allows(in_context(changed))


def test_a_guest_that_was_not_affirmed_gets_nothing(allows: Any, claims: Json) -> None:
    assert not allows(in_context(claims, result=False))
