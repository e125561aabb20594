"""Confidential serving from the owner's key to a client's receipt, and every attack on the way.

`make demo-confidential` runs this. The product is as it is, by its own commands and its client.
SIMULATED are the TEE, whose keys are public, with the agent in its guest; the key broker is a
stand-in. docs/confidential.md tells the same story for Intel TDX.
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from digit_archive import HERE, DemoFailed, check_free, pack, prepare, say
from pods import Guest, Pod, Pods
from report import Refused, Report, torchkeep
from searching import Secrets, files_below, forms_of, pieces_of
from standins.in_between import InBetween
from standins.key_services import Broker, Handler
from tampering import (
    archive_of_the_host,
    with_bit_flipped,
    with_last_bit_flipped,
    with_member_changed,
    with_payload_changed,
    with_sealed_bit_flipped,
)

from torchkeep.client import Client, NotVerified, receipt_of
from torchkeep.client.receipts import check_receipt
from torchkeep.runtime.errors import ServingError
from torchkeep.runtime.receipts import HEADER
from torchkeep.runtime.simulated_tee import SEPT_VE_DISABLE, measurement
from torchkeep.runtime.tls import self_signed

FIRST_PORT = 8080  # and the three after it: inference, management, metrics, attested TLS
COMMAND = "make demo-confidential"
KEY_ID = "kbs:///models/key/digits"
RESOURCE = KEY_ID.removeprefix("kbs:///")
SEALED = "digits.mar.sealed"
MRTD_AT = 184  # in a quote of version 4
DEBUG = 1  # the bit of TDATTRIBUTES
MEMORY = Path("/dev/shm")
PREFIX = f"torchkeep-demo-{os.getpid()}-"
INITDATA = '''\
version = "0.1.0"
algorithm = "sha384"

[data]
"policy.rego" = """
package agent_policy
default AllowRequestsFailingPolicy := false
default ExecProcessRequest := false
default ReadStreamRequest := false
"""
'''


def main() -> int:
    options = _parse_options()
    ports = range(options.ports_from, options.ports_from + 4)
    # SIGTERM then ends all that was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What the client warns of, each time, the lines of the walk-through say themselves.
    logging.getLogger("torchkeep").addHandler(logging.NullHandler())
    try:
        check_free(ports, COMMAND)
        with (
            tempfile.TemporaryDirectory(prefix=PREFIX) as disk,
            tempfile.TemporaryDirectory(prefix=PREFIX, dir=MEMORY) as memory,
        ):
            # Each worker has a user of its own where the server is root.
            for place in (disk, memory):
                Path(place).chmod(0o755)
            with contextlib.chdir(disk):
                return WalkThrough(Path.cwd(), Path(memory), list(ports)).run()
    except DemoFailed as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 1


class WalkThrough:
    """The whole story; each part stands on those before."""

    def __init__(self, disk: Path, memory: Path, ports: list[int]) -> None:
        self.report = Report()
        self.owner = disk / "owner"  # her own machine
        self.host = disk / "host"  # somebody else's, where the pods run
        self.client = disk / "client"
        self.store = self.host / "model_store"
        self.memory = memory
        self.ports = ports
        self.broker = Broker()
        self.sealed_archive = self.store / SEALED
        for place in (self.owner, self.store, self.client):
            place.mkdir(parents=True)

    def run(self) -> int:
        say(
            "SIMULATED: the TEE, its measurements and the agent in its guest, and a stand-in for "
            "the key broker.\nReal: everything else."
        )
        with ExitStack() as stack:
            self.seal_the_model()
            stack.enter_context(self.broker.listening(self._broker_identity()))
            self.pods = stack.enter_context(Pods(self.host))
            self.start_the_pod()
            self.verify()
            self.predict_past_a_gateway()
            self.meddle_with_evidence()
            self.meddle_with_predictions()
            self.start_other_pods()
            self.meddle_with_archives()
        return self.report.conclude()

    # The owner.

    def seal_the_model(self) -> None:
        report, owner = self.report, self.owner
        report.part("The owner seals her model, on a machine of her own")
        self.digit, self.png = prepare(owner, owner)
        report.passes(
            "made a key that seals and a key that signs",
            "both are the owner's alone",
            lambda: (
                torchkeep("keygen", "-o", owner / "sealing.key")
                + torchkeep("keygen", "--signing", "-o", owner / "signing.key")
            ),
        )
        report.passes(
            f"sealed digits.mar for {KEY_ID}",
            "what leaves her machine opens for that key alone, and says who made it",
            lambda: self._seal("digits", self.sealed_archive, release=2),
        )
        secrets = pieces_of(owner / "digits.mar", owner / "digits.pt", HERE / "digit_handler.py")
        secrets["key"] = forms_of((owner / "sealing.key").read_bytes())
        self.secrets = Secrets(secrets)
        report.passes(
            "searched what lies in the model store",
            "the host's disk holds no plaintext and no key",
            lambda: self._search_disk(self.store, control=owner, control_is="on her own machine"),
        )
        report.passes(
            "measured the pod's initdata, whose agent policy forbids exec and reading logs",
            "other initdata is another measurement (mr_config_id)",
            lambda: self._measured(INITDATA),
        )
        self.guest = Guest(measurement("MRTD"), self._mr_config_id(INITDATA), {})
        report.passes(
            "gave the key to a stand-in broker, with reference values (SIMULATED measurements)",
            "only a pod with this firmware and this initdata gets it",
            self._instruct_broker,
        )

    def _measured(self, initdata: str) -> str:
        """The line with mr_config_id."""
        file = self.owner / "initdata.toml"
        file.write_text(initdata)
        return torchkeep("initdata", file).splitlines()[-1]

    def _mr_config_id(self, initdata: str) -> bytes:
        return bytes.fromhex(self._measured(initdata).partition(": ")[2])

    def _seal(self, name: str, output: Path, release: int) -> str:
        return torchkeep(
            *("seal", self.owner / f"{name}.mar", "--key", self.owner / "sealing.key"),
            *("--key-id", KEY_ID, "--sign", self.owner / "signing.key"),
            *("--release", release, "-o", output),
        )

    def _search_disk(self, place: Path, control: Path, control_is: str) -> str:
        """Raises Refused where something was found, or nothing where all of it is."""
        files = files_below(place)
        found = self.secrets.found_in(file.read_bytes() for file in files)
        there = self.secrets.found_in(file.read_bytes() for file in files_below(control))
        seen = (
            f"{self.secrets.count} pieces of archive, weights, handler and key; files searched: "
            f"{len(files)}; found: {sum(found.values())}; the same search {control_is}: "
            f"{sum(there.values())}"
        )
        if found or not there or (control == self.memory and "key" in there):
            raise Refused(f"{seen}: {', '.join(found or there or ['nothing'])}")
        return seen

    def _broker_identity(self) -> Path:
        """A file with certificate and key, for itself, beside the certificate for servers."""
        certificate, key = self_signed(["127.0.0.1"])
        pem = certificate.public_bytes(Encoding.PEM)
        self.broker_certificate = self.host / "broker.pem"
        self.broker_certificate.write_bytes(pem)
        identity = self.owner / "broker-identity.pem"
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        identity.write_bytes(secret + pem)
        return identity

    def _instruct_broker(self) -> str:
        self.broker.resources[RESOURCE] = (self.owner / "sealing.key").read_bytes()
        self.broker.reference_values = {
            "mr_td": self.guest.mr_td,
            "mr_config_id": self.guest.mr_config_id,
        }
        return "\n".join(
            f"{name}: {value.hex()[:24]}..." for name, value in self.broker.reference_values.items()
        )

    # The pod.

    def start_the_pod(self) -> None:
        report = self.report
        report.part("The host starts a confidential container (SIMULATED TEE)")
        self.pod = self.pods.start("pod", self.guest, self._settings("pod"), [SEALED], self.ports)
        report.passes(
            "started the server with the sealed model",
            "the broker releases the key to the attested container, sealed for it (RCAR, JWE)",
            self._released,
        )
        report.passes(
            "searched model store, logs and all other files of the host",
            "plaintext is in memory (tmpfs) only, the key in no file at all",
            lambda: self._search_disk(self.host, control=self.memory, control_is="in the tmpfs"),
        )

    def _settings(self, name: str) -> dict[str, str]:
        """What the owner has put into the image; addresses and evidence are added by `pods`."""
        signer = (self.owner / "signing.key.pub").read_text().strip()
        trusted = {"1.0": f"{signer};min-release=2"}
        memory = self.memory / name
        memory.mkdir()
        memory.chmod(0o755)
        return {
            "model_store": str(self.store),
            "key_source": f"kbs:{self.broker.address}",
            "kbs_certificate": str(self.broker_certificate),
            "require_sealed_models": "true",
            "trusted_models": json.dumps({"digits": trusted, "letters": trusted}),
            "unpack_directory": str(memory),
            "enable_model_api": "true",
        }

    def _released(self) -> str:
        self.pod.wait_until_started()
        if reason := self.pod.fate_of("digits"):
            raise Refused(f"server: {reason}")
        lines = [line for line in self.pod.log().splitlines() if "SIMULATED" in line]
        asked = ", ".join(self.broker.requests)
        return "\n".join([f"broker: {asked}", *(f"server: {line}" for line in lines)])

    # The client.

    def verify(self) -> None:
        self.report.part("A client asks what that server is, before it sends anything")
        self.policy = self.client / "policy.yaml"
        self._write_policy()
        self.report.passes(
            "torchkeep verify, over attested TLS",
            "the server is what the policy names; that the TEE is SIMULATED, it says itself",
            lambda: self._verified(self.pod.attested),
        )
        strict = self.client / "strict.yaml"
        strict.write_text(self.policy.read_text().replace("allow_simulated: true", ""))
        self.report.refuses(
            "the same, with a policy that does not allow simulated evidence",
            "no simulated TEE passes for a real one",
            "FAIL  tee ",
            lambda: self._verified(self.pod.attested, strict),
        )

    def _write_policy(self) -> None:
        """From what the owner tells her clients; only the configuration is read off the server."""
        digest = torchkeep("inspect", self.sealed_archive).partition("sha256:")[2].split()[0]
        config = self.pod.log().partition("configuration ")[2].split()[0]
        self.policy.write_text(
            f"version: 1\n"
            f"measurements:\n"
            f"  mr_td: {self.guest.mr_td.hex()}\n"
            f"  mr_config_id: {self.guest.mr_config_id.hex()}\n"
            f"config: {config}\n"
            f"models: {{digits: {{1.0: 'sha256:{digest}'}}}}\n"
            f"allow_simulated: true\n"
        )

    def _verified(self, url: str, policy: Path | None = None) -> str:
        """All checks; raises Refused with those that failed."""
        try:
            return torchkeep("verify", url, "--policy", policy or self.policy)
        except Refused as refused:
            failed = [line for line in str(refused).splitlines() if "FAIL" in line]
            raise Refused("\n".join(line.strip() for line in failed) or str(refused)) from None

    def predict_past_a_gateway(self) -> None:
        report = self.report
        report.part("The client asks, past a gateway that ends TLS and records all it sees")
        with self._in_between() as gateway:
            report.passes(
                "a sealed prediction",
                "the model answers, and the answer is right",
                lambda: self._sealed_prediction(gateway),
            )
            report.passes(
                "searched what the gateway has recorded",
                "it has seen neither the image nor the answer",
                lambda: self._gateway_is_blind(gateway),
            )
            report.passes(
                "checked the receipt that came with the answer",
                "this model has answered this request with this answer, signed by the attested key",
                self._receipt_told,
            )
            report.refuses(
                "the client told not to seal, at the same gateway",
                "without sealing it goes only where the attested key ends TLS",
                "tls_key",
                lambda: self._predicted(Client(gateway.address, self.policy)),
            )
            report.passes(
                "a plain request by somebody who verifies nothing, at the same gateway",
                "what a gateway sees otherwise: why predictions are sealed",
                lambda: self._gateway_reads_plain(gateway),
            )

    def _in_between(self, upstream: str | None = None) -> AbstractContextManager[InBetween]:
        place = self.client / "in_between.pem"
        return InBetween(upstream or self.pod.inference).ending_tls(place)

    def _sealing_client(self, gateway: InBetween) -> Client:
        return Client(
            gateway.address,
            self.policy,
            token=self.pod.token("inference"),
            sealed=True,
            receipts=True,
            proxy_tls=gateway.known_by,
        )

    def _sealed_prediction(self, gateway: InBetween) -> str:
        with self._sealing_client(gateway) as client:
            self.answer = client.predict("digits", self.png.read_bytes(), content_type="image/png")
            self.public_key = client.verify().public_key
        found = self.answer.json()
        if self.answer.status_code != 200 or found["digit"] != self.digit:
            raise Refused(f"{self.answer.status_code} {self.answer.text}, and not {self.digit}")
        return f"the answer is {found['digit']}, the truth {self.digit}"

    def _gateway_is_blind(self, gateway: InBetween) -> str:
        seen = bytes(gateway.read)
        image, answer = self.png.read_bytes(), self.answer.content
        if b"/predictions/digits" not in seen:
            raise Refused("the prediction did not pass it")
        found = {"image": image[:48] in seen or image[-48:] in seen, "answer": answer in seen}
        if any(found.values()):
            raise Refused(f"it has read {', '.join(name for name in found if found[name])}")
        sealed = [one for one in gateway.passed if one.method == "POST"]
        return (
            f"{len(seen)} bytes; of the prediction it knows: {sealed[0].method} {sealed[0].path}, "
            f"{sealed[0].headers['content-type']}, {len(sealed[0].body)} bytes, the API key"
        )

    def _receipt_told(self) -> str:
        receipt = receipt_of(self.answer)
        if receipt is None:
            raise Refused("there is none")
        self._check_receipt(self.answer.headers[HEADER])
        model = receipt.model
        return (
            f"model {model.name} {model.version}, sha256:{model.digest.hex()[:12]}..., "
            f"answer sha256:{receipt.answered.sha256.hex()[:12]}..."
        )

    def _check_receipt(self, text: str, **changes: Any) -> None:
        """Raises ReceiptError. `changes` are of the answer that it is shown with."""
        receipt = receipt_of(self.answer)
        assert receipt is not None, "checked by the step before"
        check_receipt(
            text,
            self.public_key or b"",
            nonce=receipt.nonce,
            asked=receipt.asked,
            answered=replace(receipt.answered, **changes),
            models=None,
        )

    def _gateway_reads_plain(self, gateway: InBetween) -> str:
        token = self.pod.token("inference")
        answer = httpx.post(
            f"{gateway.address}/predictions/digits",
            content=self.png.read_bytes(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "image/png"},
            verify=gateway.known_by or True,
            trust_env=False,
            timeout=60,
        )
        seen = bytes(gateway.read)
        if self.png.read_bytes() not in seen or answer.content not in seen:
            raise Refused("the gateway did not see it: then the search above proves nothing")
        return f"it reads the image ({self.png.stat().st_size} bytes) and the answer"

    # Evidence.

    def meddle_with_evidence(self) -> None:
        report = self.report
        report.part("Somebody in between meddles with evidence (SIMULATED as it is)")
        with self._in_between(self.pod.attested) as attacker:
            report.refuses(
                "the certificate of the attested listener is exchanged for his own",
                "a man in the middle is found before anything is sent",
                "FAIL  tls_key",
                lambda: self._verified(attacker.address),
            )
            report.refuses(
                "the same, with a client that would predict",
                "it sends nothing to him: neither token nor image",
                "he saw: GET /attestation alone",
                lambda: self._nothing_sent(attacker),
            )
        with InBetween(self.pod.inference).listening() as attacker:
            attacker.change_answer = self._kept
            self._verified(attacker.address)
            attacker.misbehave = self._replays
            report.refuses(
                "evidence that was recorded before is shown again",
                "evidence answers this client's nonce, now",
                "FAIL  nonce",
                lambda: self._verified(attacker.address),
            )
            attacker.misbehave = None
            attacker.change_answer = with_member_changed("claims", -1)
            report.refuses(
                "one bit of the claims is changed",
                "the quote vouches for these claims and no others",
                "FAIL  report_data",
                lambda: self._verified(attacker.address),
            )
            attacker.change_answer = with_member_changed("quote", MRTD_AT)
            report.refuses(
                "one bit of the quote is changed",
                "nobody but the (SIMULATED) platform makes quotes",
                "FAIL  quote ",
                lambda: self._verified(attacker.address),
            )

    def _kept(self, document: bytes) -> bytes:
        self.recorded = document  # the last one that came
        return document

    def _replays(self, request: Handler) -> bool:
        request.answer(200, self.recorded, "application/json")
        return True

    def _nothing_sent(self, attacker: InBetween) -> str:
        attacker.passed.clear()
        client = Client(attacker.address, self.policy, token=self.pod.token("inference"))
        try:
            return self._predicted(client)
        except Refused as refused:
            seen = {f"{one.method} {one.path.partition('?')[0]}" for one in attacker.passed}
            has_token = any("authorization" in one.headers for one in attacker.passed)
            alone = " alone" if len(seen) == 1 and not has_token else ""
            raise Refused(f"{refused}\nhe saw: {', '.join(sorted(seen))}{alone}") from None

    def _predicted(self, client: Client) -> str:
        with client:
            try:
                answer = client.predict("digits", self.png.read_bytes(), content_type="image/png")
            except NotVerified as error:
                failed = [f"{check.name}: {check.text}" for check in error.verdict.failed]
                raise Refused("the client: " + "\n".join(failed)) from None
            except ServingError as error:
                raise Refused(f"the client: {' '.join(str(error).split())}") from None
        return f"{answer.status_code} {answer.text}"

    # Predictions.

    def meddle_with_predictions(self) -> None:
        report = self.report
        report.part("Somebody in between meddles with predictions")
        with self._in_between() as attacker:
            attacker.change_request = with_last_bit_flipped
            report.refuses(
                "one bit of a sealed request is changed",
                "the server takes requests as they were sealed, or not at all",
                "SealedRequestException",
                lambda: self._predicted(self._sealing_client(attacker)),
            )
            attacker.change_request = bytes
            report.refuses(
                "a sealed request is sent again",
                "each request counts once",
                "ReplayedRequestException",
                lambda: self._sent_again(attacker),
            )
            attacker.change_answer = with_sealed_bit_flipped
            report.refuses(
                "one bit of a sealed answer is changed",
                "the client takes answers as they were sealed, or not at all",
                "does not open",
                lambda: self._predicted(self._sealing_client(attacker)),
            )
        receipt = self.answer.headers[HEADER]
        report.refuses(
            "a receipt is changed: another digit of the answer's digest",
            "a receipt says what the attested key has signed",
            "not signed by this key",
            lambda: self._shown(with_payload_changed(receipt)),
        )
        report.refuses(
            "a receipt is shown for another answer",
            "a receipt is for one answer",
            "another answer",
            lambda: self._shown(receipt, sha256=bytes(32)),
        )

    def _sent_again(self, attacker: InBetween) -> str:
        self._predicted(self._sealing_client(attacker))
        sealed = [one for one in attacker.passed if one.method == "POST"][-1]
        status, _, body = attacker.send(sealed)
        return _unless_refused(status, body)

    def _shown(self, receipt: str, **changes: Any) -> str:
        try:
            self._check_receipt(receipt, **changes)
        except ServingError as error:
            raise Refused(f"the client: {error}") from None
        return "the receipt holds"

    # Other pods.

    def start_other_pods(self) -> None:
        report = self.report
        report.part("The host starts other containers with the same sealed model (SIMULATED TEEs)")
        changed = INITDATA.replace("ExecProcessRequest := false", "ExecProcessRequest := true")
        guests = {
            "firmware": replace(self.guest, mr_td=measurement("another MRTD")),
            "initdata": replace(self.guest, mr_config_id=self._mr_config_id(changed)),
            "debug": replace(self.guest, further={"td_attributes": SEPT_VE_DISABLE | DEBUG}),
        }
        pods = {
            name: self.pods.start(name, guest, self._settings(name), [SEALED])
            for name, guest in guests.items()
        }
        laxer = self._settings("config") | {"require_sealed_models": "false"}
        pods["config"] = self.pods.start("config", self.guest, laxer)
        exposed = self._settings("exposed") | {"inference_address": "http://0.0.0.0:0"}
        pods["exposed"] = self.pods.start("exposed", self.guest, exposed)
        report.refuses(
            "another firmware or guest image: another measurement (mr_td)",
            "no other guest gets the key",
            "mr_td: not the reference value",
            lambda: self._denied(pods["firmware"], "mr_td"),
        )
        report.refuses(
            "other initdata: an agent policy that allows exec",
            "no other agent policy, and so no other image or command, gets the key",
            "mr_config_id: not the reference value",
            lambda: self._denied(pods["initdata"], "mr_config_id"),
        )
        report.refuses(
            "a DEBUG domain, whose memory the host reads: at the broker",
            "no key for a TEE that is none",
            "attestation refused",
            lambda: self._denied(pods["debug"], "quote"),
        )
        report.refuses(
            "a DEBUG domain, at the client",
            "no prediction for it either",
            "FAIL  debug",
            lambda: self._verified(pods["debug"].attested),
        )
        report.refuses(
            "another configuration: require_sealed_models=false",
            "clients know the settings by their digest",
            "FAIL  config",
            lambda: self._verified_when_started(pods["config"]),
        )
        report.refuses(
            "a plain listener for other machines beside the attested one",
            "attested_tls leaves no way past it",
            "inference_address",
            lambda: self._started(pods["exposed"]),
        )

    def _denied(self, pod: Pod, by: str) -> str:
        """What the server says of the key it did not get, and the broker of why."""
        pod.wait_until_started()
        reason = pod.fate_of("digits")
        if not reason:
            return "it has got the key, and serves the model"
        told = {one for one in self.broker.refusals if one.startswith(by)}
        raise Refused("\n".join([f"server: {reason}", *(f"broker: {one}" for one in told)]))

    def _verified_when_started(self, pod: Pod) -> str:
        pod.wait_until_started()
        return self._verified(pod.attested)

    def _started(self, pod: Pod) -> str:
        if pod.has_started():
            return "it serves"
        raise Refused(f"server: {pod.log().strip().splitlines()[-1]}")

    # Archives.

    def meddle_with_archives(self) -> None:
        report, sealed = self.report, self.sealed_archive
        report.part("The host meddles with the model store, and has the model loaded anew")
        genuine = sealed.read_bytes()
        self.pod.manage("DELETE", "/models/digits")
        pack(self.owner / "digits.pt", self.owner, "letters")
        self._seal("letters", self.owner / "letters.sealed", release=2)
        self._seal("digits", self.owner / "older.sealed", release=1)
        header_end = 12 + int.from_bytes(genuine[8:12], "big")
        middle = (header_end + len(genuine)) // 2
        letters = (self.owner / "letters.sealed").read_bytes()
        for did, proves, by, contents in (
            (
                "one bit of the sealed archive is changed",
                "it opens as the owner sealed it, or not at all",
                "was changed, moved or comes from another archive",
                with_bit_flipped(genuine, middle),
            ),
            (
                "its header is changed: another release number",
                "the header is as the owner signed it",
                "not what its owner signed",
                genuine.replace(b'"release":2', b'"release":3', 1),
            ),
            (
                "another model of the same owner lies in its place",
                "no model passes for another",
                "letters",
                letters,
            ),
            (
                "an older release of the model lies in its place",
                "nobody rolls the model back",
                "older than min-release=2",
                (self.owner / "older.sealed").read_bytes(),
            ),
        ):
            report.refuses(did, proves, by, lambda contents=contents: self._loaded(contents))
        report.refuses(
            "an archive of the host's own, not sealed",
            "only what the owner sealed is run",
            "is not sealed",
            lambda: self._loaded(archive_of_the_host(), "digits.mar"),
        )
        key = self.broker.resources[RESOURCE]
        self.broker.resources[RESOURCE] = bytes(32)
        report.refuses(
            "the broker holds another key",
            "an archive opens with its own key alone",
            "wrong key",
            lambda: self._loaded(genuine),
        )
        self.broker.resources[RESOURCE] = key
        self.broker.is_policy_open = False
        report.refuses(
            "the owner closes the broker's policy",
            "the owner can withdraw a model",
            "policy denied",
            lambda: self._loaded(genuine),
        )
        self.broker.is_policy_open = True
        report.passes(
            "all is put back as it was",
            "none of these refusals had another reason",
            lambda: self._loaded(genuine),
        )
        report.passes(
            "searched the host's files once more, after all of this",
            "no refusal has left plaintext or key behind",
            lambda: self._search_disk(self.host, control=self.memory, control_is="in the tmpfs"),
        )

    def _loaded(self, contents: bytes, name: str = SEALED) -> str:
        """What the server says to a registration of a file with these contents."""
        (self.store / name).write_bytes(contents)
        query = f"url={name}&model_name=digits&initial_workers=1&synchronous=true"
        status, said = self.pod.manage("POST", f"/models?{query}")
        return _unless_refused(status, json.dumps(said).encode())


def _unless_refused(status: int, body: bytes) -> str:
    said = json.loads(body)
    if status != 200:
        raise Refused(f"server: {status} {said['type']}: {said['message']}")
    return f"server: {status} {said['status']}"


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ports-from",
        type=int,
        default=FIRST_PORT,
        metavar="N",
        help="serve on N to N+3 instead of 8080-8083",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
