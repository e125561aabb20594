"""The policy file: what it means, and everything it must not be."""

from pathlib import Path

import pytest
from attested import AttestedServer, policy_for

from torchkeep.client.errors import PolicyError
from torchkeep.client.policy import Policy, parse_policy, policy_text, read_policy
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.quote import parse_quote

MEASURED = "11" * 48
DIGEST = "22" * 32
SMALLEST = f"version: 1\nmeasurements: {{mr_td: '{MEASURED}'}}\nconfig: any\nmodels: any\n"


def test_smallest_policy_has_strict_defaults() -> None:
    policy = parse_policy(SMALLEST)
    assert policy == Policy(
        measurements={"mr_td": frozenset({bytes.fromhex(MEASURED)})},
        config=None,
        models=None,
        tcb_statuses=frozenset({"UpToDate"}),
        advisories=frozenset(),
        allow_simulated=False,
        max_age_s=3600,
        collateral_file=None,
        pccs_url=None,
    )


def test_every_key(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        f"""
version: 1
measurements:
  mr_td: [{MEASURED}, {"33" * 48}]
  rtmr0: {MEASURED}
  rtmr1: any
  mr_config_id: {"0" * 96}
tcb:
  statuses: [UpToDate, SWHardeningNeeded]
  advisories: [INTEL-SA-00615]
config: [{DIGEST}]
models:
  resnet:
    1.0: sha256:{DIGEST}
    2.0: [{"1" * 64}, {DIGEST}]
allow_simulated: true
max_age_s: 60
collateral:
  file: collateral.json
""",
        "utf-8",
    )
    policy = read_policy(file)
    assert policy.measurements == {
        "mr_td": frozenset({b"\x11" * 48, b"\x33" * 48}),
        "rtmr0": frozenset({b"\x11" * 48}),
        "mr_config_id": frozenset({bytes(48)}),
    }
    assert policy.tcb_statuses == {"UpToDate", "SWHardeningNeeded"}
    assert policy.advisories == {"INTEL-SA-00615"}
    assert policy.config == {b"\x22" * 32}
    assert policy.models == {
        ModelClaim("resnet", "1.0", b"\x22" * 32),
        ModelClaim("resnet", "2.0", b"\x11" * 32),
        ModelClaim("resnet", "2.0", b"\x22" * 32),
    }
    assert policy.allow_simulated
    assert policy.max_age_s == 60
    assert policy.collateral_file == tmp_path / "collateral.json"


def test_any_is_said_in_a_word() -> None:
    text = "version: 1\nmeasurements: any\nconfig: any\nmodels: any\ntcb: {advisories: any}\n"
    policy = parse_policy(text)
    assert (policy.measurements, policy.config, policy.models) == ({}, None, None)
    assert policy.advisories is None


def with_line(line: str) -> str:
    """The smallest policy with one key replaced, or added."""
    key = line.split(":")[0]
    kept = [one for one in SMALLEST.splitlines() if not one.startswith(f"{key}:")]
    return "\n".join([*kept, line])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the policy: `key: value` lines"),
        ("- 1", "the policy: `key: value` lines"),
        ("{", "no YAML"),
        (with_line("version: 2"), "version: .* version 1"),
        ("measurements: any\nconfig: any\nmodels: any", "version: the policy must say this"),
        ("version: 1\nconfig: any\nmodels: any", "measurements: the policy must say this"),
        ("version: 1\nmeasurements: any\nmodels: any", "config: the policy must say this"),
        ("version: 1\nmeasurements: any\nconfig: any", "models: the policy must say this"),
        (with_line("measurements: {}"), "measurements: name at least one of"),
        (with_line("measurements: {mr_td: any}"), "measurements: name at least one of"),
        (with_line("measurements: {mrtd: any}"), "measurements.mrtd: there is no such key"),
        ("[" * 2000, "nested too deeply"),
        (with_line("measurements: none"), "measurements: `key: value` lines"),
        (with_line("measurements: {mr_td: []}"), "measurements.mr_td: an empty list"),
        (with_line("measurements: {mr_td: 11}"), "measurements.mr_td: 96 hexadecimal digits"),
        (with_line(f"measurements: {{mr_td: '{'1' * 98}'}}"), "96 hexadecimal digits"),
        (with_line(f"measurements: {{mr_td: '{'g' * 96}'}}"), "96 hexadecimal digits"),
        (with_line(f"measurements: {{mr_td: '{'1 ' * 48}'}}"), "96 hexadecimal digits"),
        (with_line(f"measurements: {{mr_td: 'sha256:{DIGEST}'}}"), "96 hexadecimal digits"),
        (with_line("measurements: {mr_td: {a: b}}"), "measurements.mr_td: a list of words"),
        (with_line("config: ''"), "config: 64 hexadecimal digits"),
        (with_line("config:"), "config: 64 hexadecimal digits"),
        (with_line("models: [a]"), "models: `key: value` lines"),
        (with_line("models: {a: any}"), "models.a: `key: value` lines"),
        (with_line("models: {a: {'1.0': any}}"), "models.a.1.0: 64 hexadecimal digits"),
        (with_line("tcb: [UpToDate]"), "tcb: `key: value` lines"),
        (with_line("tcb: {statuses: UpToDate}"), "tcb.statuses: a list of words"),
        (with_line("tcb: {statuses: []}"), "tcb.statuses: an empty list"),
        (with_line("tcb: {statuses: [uptodate]}"), "tcb.statuses: 'uptodate' is none of"),
        (with_line("tcb: {statuses: [Revoked]}"), "tcb.statuses: 'Revoked' is none of"),
        (with_line("tcb: {advisories: [[a]]}"), "tcb.advisories: a list of words"),
        (with_line("tcb: {status: [UpToDate]}"), "tcb.status: there is no such key"),
        (with_line("allow_simulated: yes"), "allow_simulated: true or false"),
        (with_line("allow_simulated: 1"), "allow_simulated: true or false"),
        (with_line("max_age_s: 0"), "max_age_s: a number of seconds"),
        (with_line("max_age_s: -1"), "max_age_s: a number of seconds"),
        (with_line("max_age_s: 1h"), "max_age_s: a number of seconds"),
        (with_line("max_age_s: 999999999"), "max_age_s: a number of seconds"),
        (with_line("collateral: {pccs: pccs.example}"), "collateral.pccs: a URL"),
        (with_line("collateral: {file: [a]}"), "collateral.file: a text"),
        (with_line("collateral: {url: a}"), "collateral.url: there is no such key"),
        (with_line("collateral: {file: a, pccs: 'https://b'}"), "collateral: one of"),
        (with_line("debug: true"), "debug: there is no such key"),
        (SMALLEST + "config: any\n", "a key stands twice"),
        (SMALLEST + "? [a]\n: b\n", "no YAML"),
    ],
)
def test_what_is_no_policy_is_refused_by_name(text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=f"^strict.yaml: .*{reason}"):
        parse_policy(text, "strict.yaml")


def test_policy_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "policy.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "policy.yaml")


def test_written_policy_is_read_as_it_was_meant() -> None:
    names = ("echo", 'odd "name": {}', "na\u00efve", "1")
    server = AttestedServer(models=tuple(ModelClaim(name, "1.0", b"\x44" * 32) for name in names))
    policy = policy_for(server, pccs_url="https://pccs.example/", max_age_s=60)
    text = policy_text(parse_quote(server.quote(b"")).report, policy)
    measurements = {name: v for name, v in policy.measurements.items() if name != "rtmr3"}
    assert parse_policy(text) == policy_for(
        server, measurements=measurements, pccs_url="https://pccs.example/", max_age_s=60
    )
    assert "SIMULATED" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"models": None, "config": None, "advisories": None},
        {"models": frozenset(), "allow_simulated": False},
        {"collateral_file": Path("/a directory/c: #.json")},
    ],
)
def test_written_policy_of_other_kinds(changes: dict[str, object]) -> None:
    server = AttestedServer()
    policy = policy_for(server, **changes)
    read = parse_policy(policy_text(parse_quote(server.quote(b"")).report, policy))
    for name in changes:
        assert getattr(read, name) == getattr(policy, name)
