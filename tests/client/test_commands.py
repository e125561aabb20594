"""`torchkeep verify` and `torchkeep initdata` as people run them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from attested import AttestedServer
from attested_http import HttpServer, own_context

from torchkeep.client.commands import main
from torchkeep.client.initdata import annotation_value, mr_config_id
from torchkeep.client.policy import parse_policy
from torchkeep.runtime import simulated_tee
from torchkeep.runtime.__main__ import torchkeep

Capture = pytest.CaptureFixture[str]
INITDATA = (
    b'version = "0.1.0"\nalgorithm = "sha384"\n[data]\n"policy.rego" = "package agent_policy"\n'
)
ANYTHING = "version: 1\nmeasurements: any\nconfig: any\nmodels: any\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpServer]:
    attested = AttestedServer()
    context = own_context(attested, tmp_path / "tls.pem")
    with HttpServer(attested, lambda number: context).listening() as listening:
        yield listening


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(ANYTHING)
    return file


def test_first_policy_verifies_the_server_that_it_was_written_from(
    server: HttpServer, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["verify", server.url, "--print-policy", "--allow-simulated"]) == 0
    written = capsys.readouterr()
    assert "refuses" not in written.err
    file = tmp_path / "first.yaml"
    file.write_text(written.out)
    named = set(parse_policy(written.out).measurements)
    assert named == {"mr_td", "rtmr0", "rtmr1", "rtmr2", "mr_config_id"}
    assert main(["verify", server.url, "--policy", str(file)]) == 0
    verified = capsys.readouterr()
    first, *checks, last = verified.out.splitlines()
    assert first == server.url
    assert all(line.startswith("  ok    ") for line in checks)
    assert last == f"Verified: {len(checks)} checks hold."
    assert "SIMULATED. It proves nothing" in verified.err

    server.attested.config = bytes(32)
    assert main(["verify", server.url, "--policy", str(file)]) == 1
    refused = capsys.readouterr().out
    assert "\n  FAIL  config        0000" in refused
    assert "Not verified: 1 of" in refused


def test_simulated_evidence_is_refused_unless_it_is_asked_for(
    server: HttpServer, policy: Path, capsys: Capture
) -> None:
    assert main(["verify", server.url, "--policy", str(policy)]) == 1
    assert "FAIL  tee     it is simulated, which proves nothing" in capsys.readouterr().out
    assert main(["verify", server.url, "--print-policy"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert "No policy is written" in written.err
    assert main(["verify", server.url, "--policy", str(policy), "--allow-simulated"]) == 0


def test_collateral_of_a_file(server: HttpServer, policy: Path, capsys: Capture) -> None:
    file = policy.with_name("collateral.json")
    file.write_text(simulated_tee.collateral(time.time(), tcb_status="OutOfDate"))
    arguments = ["verify", server.url, "--allow-simulated", "--collateral", str(file)]
    assert main([*arguments, "--policy", str(policy)]) == 1
    assert "FAIL  tcb          the platform is OutOfDate" in capsys.readouterr().out
    assert main([*arguments, "--print-policy"]) == 0
    written = capsys.readouterr()
    assert "statuses: [UpToDate]" in written.out
    assert "This policy refuses this very server: tcb: the platform is OutOfDate" in written.err
    file.write_text(simulated_tee.collateral(time.time() - 40 * 86400))
    assert main([*arguments, "--policy", str(policy)]) == 1
    assert "FAIL  collateral  not of this time" in capsys.readouterr().out


@pytest.mark.parametrize("plain", [True, False], ids=["http", "proxy"])
def test_connection_that_is_not_judged_is_said_so(
    plain: bool, policy: Path, capsys: Capture, tmp_path: Path
) -> None:
    attested = AttestedServer()
    stranger = replace(AttestedServer(), quoting={"seed": b"another"})
    context = None if plain else own_context(stranger, tmp_path / "proxy.pem")
    with HttpServer(attested, lambda number: context).listening() as server:
        arguments = ["verify", server.url, "--policy", str(policy), "--allow-simulated"]
        if plain:
            assert main(arguments) == 0
            said = capsys.readouterr()
            assert "tls_key" not in said.out
            assert "Only sealed requests are protected" in said.err
        else:
            assert main(arguments) == 1
            assert "FAIL  tls_key" in capsys.readouterr().out
            # Its certificate is nothing that the system's authorities know.
            assert main([*arguments, "--behind-proxy"]) == 2
            assert "certificate verify failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["https://127.0.0.1:1", "--print-policy"], "https://127.0.0.1:1/attestation: "),
        (["nowhere", "--print-policy"], "nowhere: expected https://host[:port]"),
        (["https://127.0.0.1:1", "--policy", "none.yaml"], "none.yaml: the policy cannot be read"),
    ],
)
def test_no_evidence_ends_with_2(arguments: list[str], reason: str, capsys: Capture) -> None:
    assert main(["verify", *arguments]) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "https://host"],
        ["verify", "https://host", "--policy", "p", "--print-policy"],
        ["verify", "https://host", "--policy", "p", "--collateral", "c", "--pccs", "p"],
        ["initdata"],
        ["other"],
    ],
)
def test_wrong_usage_leaves_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: torchkeep" in capsys.readouterr().err


def test_initdata_is_printed_for_pod_and_policy(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "initdata.toml"
    file.write_bytes(INITDATA)
    assert main(["initdata", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "# Annotation of the pod:",
        f"io.katacontainers.config.hypervisor.cc_init_data: {annotation_value(INITDATA)}",
        "# Measurement in the policy of clients and key brokers:",
        f"mr_config_id: {mr_config_id(INITDATA).hex()}",
    ]
    file.write_bytes(b"version = 1")
    assert main(["initdata", str(file)]) == 1
    assert f"{file}: version: expected" in capsys.readouterr().err
    assert main(["initdata", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["dcap_qvl", "httpx"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from torchkeep.runtime.__main__ import torchkeep\n"
        "torchkeep(['verify', 'https://host', '--print-policy'])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == f"torchkeep: verify needs {missing}: pip install 'torchkeep[client]'\n"


def test_the_help_of_torchkeep_names_both(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        torchkeep(["--help"])
    text = capsys.readouterr().out
    assert "verify " in text
    assert "initdata " in text
