"""SIMULATED: a TEE whose every key is public. Its quotes are well formed and prove nothing.

It stands in for Intel's key hierarchy and for a TDX machine, so that all that makes, carries and
verifies quotes can run where there is no such machine:

    root -> platform CA -> PCK of the platform -> attestation key -> quote (version 4)
        `-> TCB signer -> TCB info, QE identity

All keys are derived from a seed that stands below, so whoever reads this file can mint the same
quotes. Verifiers therefore take this root only where their policy says `allow_simulated`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SEED = b"torchkeep simulated TEE: public, hence worth nothing"
SEPT_VE_DISABLE = 1 << 28  # TDATTRIBUTES; verifiers insist on it
LIFETIME = timedelta(days=30)  # of collateral, as Intel's

_FMSPC = bytes.fromhex("51d000000000")
_PCE_ID = bytes(2)
_PCE_SVN = 11
_COMPONENT_SVN = 1  # of each of the 16 components of both TCBs
_SGX_EXTENSION = "1.2.840.113741.1.13.1"
_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")  # Intel's, in every quote
_QE_SIGNER = hashlib.sha256(b"simulated quoting enclave's signer").digest()
_QE_ATTRIBUTES = b"\x11".ljust(16, b"\0")
_PCK_SERIAL = 0x51D
_VALID = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC))


def measurement(name: str) -> bytes:
    """What the simulated TEE has measured of a thing of this name: 48 bytes, always the same."""
    return hashlib.sha384(f"torchkeep simulated {name}".encode()).digest()


def mint_quote(
    report_data: bytes,
    *,
    mr_td: bytes | None = None,
    rt_mrs: Sequence[bytes] | None = None,
    mr_config_id: bytes = bytes(48),
    td_attributes: int = SEPT_VE_DISABLE,
    seed: bytes = SEED,
) -> bytes:
    """A quote over these 64 bytes; with another seed, from under another root."""
    keys = _hierarchy(seed)
    header = b"".join(
        [_le(4, 2), _le(2, 2), _le(0x81, 4), bytes(4), _QE_VENDOR, bytes(20)]
    )  # version, ECDSA P-256, TDX
    body = b"".join(
        [
            bytes([_COMPONENT_SVN, 0]) + bytes([_COMPONENT_SVN] * 14),  # TEE_TCB_SVN
            *[measurement("MRSEAM"), bytes(48), bytes(8)],  # the TDX module, Intel's own
            *[_le(td_attributes, 8), _le(0x61AE7, 8)],  # XFAM
            *[mr_td or measurement("MRTD"), mr_config_id, bytes(48), bytes(48)],
            *(rt_mrs or [measurement(f"RTMR{number}") for number in range(4)]),
            report_data,
        ]
    )
    attestation_key = _raw_public(keys.attestation)
    authentication = bytes(32)
    qe_report = _qe_report(hashlib.sha256(attestation_key + authentication).digest())
    chain = keys.pck_chain
    certification = b"".join(
        [
            *[qe_report, _raw_signature(keys.pck, qe_report)],
            *[_le(len(authentication), 2), authentication],
            *[_le(5, 2), _le(len(chain), 4), chain],  # a chain in PEM
        ]
    )
    signature = b"".join(
        [
            *[_raw_signature(keys.attestation, header + body), attestation_key],
            *[_le(6, 2), _le(len(certification), 4), certification],  # a QE report
        ]
    )
    return header + body + _le(len(signature), 4) + signature


def root_certificate(seed: bytes = SEED) -> bytes:
    """The root that the quotes of this seed verify under, in DER."""
    return _hierarchy(seed).root_certificate.public_bytes(Encoding.DER)


def collateral(
    now: float,
    *,
    tcb_status: str = "UpToDate",
    advisory_ids: Sequence[str] = (),
    is_platform_revoked: bool = False,
    seed: bytes = SEED,
) -> str:
    """What a verifier must know to judge a quote, issued at `now`: JSON, as dcap-qvl reads it."""
    keys = _hierarchy(seed)
    issued = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    expires = issued + LIFETIME
    dates = {"issueDate": _json_date(issued), "nextUpdate": _json_date(expires)}
    tcb_info = json.dumps(_tcb_info(dates, tcb_status, advisory_ids), separators=(",", ":"))
    qe_identity = json.dumps(_qe_identity(dates), separators=(",", ":"))
    revoked = [_PCK_SERIAL] if is_platform_revoked else []
    signer_chain = _pem(keys.tcb_signer_certificate, keys.root_certificate)
    return json.dumps(
        {
            "pck_crl_issuer_chain": _pem(keys.platform_certificate, keys.root_certificate),
            "root_ca_crl": _crl(keys.root, _ROOT_NAME, [], issued, expires).hex(),
            "pck_crl": _crl(keys.platform, _PLATFORM_NAME, revoked, issued, expires).hex(),
            "tcb_info_issuer_chain": signer_chain,
            "tcb_info": tcb_info,
            "tcb_info_signature": _raw_signature(keys.tcb_signer, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": signer_chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": _raw_signature(keys.tcb_signer, qe_identity.encode()).hex(),
        }
    )


def _tcb_info(dates: dict[str, str], status: str, advisory_ids: Sequence[str]) -> dict[str, object]:
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    components = [{"svn": _COMPONENT_SVN}] * 16
    tdx_components = [{"svn": _COMPONENT_SVN}, {"svn": 0}, *components[2:]]
    tcb = {
        "sgxtcbcomponents": components,
        "pcesvn": _PCE_SVN,
        "tdxtcbcomponents": tdx_components,
    }
    level = {"tcb": tcb, "tcbDate": dates["issueDate"], "tcbStatus": status}
    if advisory_ids:
        level["advisoryIDs"] = list(advisory_ids)
    return {
        **{"id": "TDX", "version": 3, **dates},
        **{"fmspc": _FMSPC.hex().upper(), "pceId": _PCE_ID.hex()},
        **{"tcbType": 0, "tcbEvaluationDataNumber": 1},
        **{"tdxModule": module, "tcbLevels": [level]},
    }


def _qe_identity(dates: dict[str, str]) -> dict[str, object]:
    level = {"tcb": {"isvsvn": 1}, "tcbDate": dates["issueDate"], "tcbStatus": "UpToDate"}
    return {
        **{"id": "TD_QE", "version": 2, **dates, "tcbEvaluationDataNumber": 1},
        **{"miscselect": "00" * 4, "miscselectMask": "FF" * 4},
        **{"attributes": _QE_ATTRIBUTES.hex(), "attributesMask": "FB" + "FF" * 7 + "00" * 8},
        **{"mrsigner": _QE_SIGNER.hex().upper(), "isvprodid": 2, "tcbLevels": [level]},
    }


def _qe_report(report_data: bytes) -> bytes:
    """The report of the quoting enclave, an SGX enclave: it vouches for the attestation key."""
    return b"".join(
        [
            *[bytes([_COMPONENT_SVN] * 16), bytes(4), bytes(28), _QE_ATTRIBUTES],
            *[hashlib.sha256(b"simulated quoting enclave").digest(), bytes(32), _QE_SIGNER],
            *[bytes(96), _le(2, 2), _le(1, 2), bytes(60), report_data.ljust(64, b"\0")],
        ]
    )


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    root: ec.EllipticCurvePrivateKey
    platform: ec.EllipticCurvePrivateKey
    pck: ec.EllipticCurvePrivateKey
    tcb_signer: ec.EllipticCurvePrivateKey
    attestation: ec.EllipticCurvePrivateKey
    root_certificate: x509.Certificate
    platform_certificate: x509.Certificate
    tcb_signer_certificate: x509.Certificate
    pck_chain: bytes  # PEM


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


_ROOT_NAME = _name("SIMULATED Root CA")
_PLATFORM_NAME = _name("SIMULATED PCK Platform CA")


@cache
def _hierarchy(seed: bytes) -> _Hierarchy:
    def key(name: str) -> ec.EllipticCurvePrivateKey:
        secret = hashlib.sha256(seed + b"\0" + name.encode()).digest()
        return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())

    root, platform, pck, signer = key("root"), key("platform CA"), key("PCK"), key("TCB signer")
    root_certificate = _certificate(_ROOT_NAME, root, 1, _ROOT_NAME, root, is_ca=True)
    platform_certificate = _certificate(_PLATFORM_NAME, platform, 2, _ROOT_NAME, root, is_ca=True)
    signer_certificate = _certificate(_name("SIMULATED TCB Signing"), signer, 3, _ROOT_NAME, root)
    pck_certificate = _certificate(
        *(_name("SIMULATED PCK Certificate"), pck, _PCK_SERIAL, _PLATFORM_NAME, platform),
        extension=x509.UnrecognizedExtension(
            x509.ObjectIdentifier(_SGX_EXTENSION), _sgx_extension()
        ),
    )
    chain = _pem(pck_certificate, platform_certificate, root_certificate).encode()
    return _Hierarchy(
        *(root, platform, pck, signer, key("attestation")),
        *(root_certificate, platform_certificate, signer_certificate, chain),
    )


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    serial: int,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool = False,
    extension: x509.ExtensionType | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), serial, *_VALID)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _crl(
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    revoked: Sequence[int],
    issued: datetime,
    expires: datetime,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder(issuer, issued, expires)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder(serial, issued).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _sgx_extension() -> bytes:
    """What a PCK certificate says of its platform: pairs of an object identifier and a value."""
    components = [
        _pair(f"2.{number}", _der(0x02, bytes([_COMPONENT_SVN]))) for number in range(1, 17)
    ]
    tcb = [
        *components,
        _pair("2.17", _der(0x02, bytes([_PCE_SVN]))),
        _pair("2.18", _der(0x04, bytes([_COMPONENT_SVN] * 16))),
    ]
    return _der(
        0x30,
        _pair("1", _der(0x04, bytes(16)))  # the platform's id
        + _pair("2", _der(0x30, b"".join(tcb)))
        + _pair("3", _der(0x04, _PCE_ID))
        + _pair("4", _der(0x04, _FMSPC))
        + _pair("5", _der(0x0A, b"\0")),
    )


def _pair(arc: str, value: bytes) -> bytes:
    first, second, *rest = (int(part) for part in f"{_SGX_EXTENSION}.{arc}".split("."))
    identifier = bytes([first * 40 + second]) + b"".join(_base_128(part) for part in rest)
    return _der(0x30, _der(0x06, identifier) + value)


def _base_128(number: int) -> bytes:
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.insert(0, number & 0x7F | 0x80)
    return bytes(octets)


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    return bytes([tag, 0x82]) + length.to_bytes(2, "big") + content


def _raw_signature(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _raw_public(key: ec.EllipticCurvePrivateKey) -> bytes:
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return point[1:]


def _pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def _json_date(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")


def _le(number: int, length: int) -> bytes:
    return number.to_bytes(length, "little")
