"""What a client asks of a server: a small YAML file, read strictly; nothing goes by default.

Every scalar is read as text, so that no digest of digits only, and no version 1.0, turns into a
number on the way. docs/attestation.md explains the keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from torchkeep.client.errors import PolicyError
from torchkeep.runtime.claims import DIGEST_BYTES, ModelClaim
from torchkeep.runtime.quote import TdReport

_T = TypeVar("_T")

MEASUREMENT_BYTES = 48
MEASUREMENTS = ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_config_id")
ANY = "any"
UP_TO_DATE = "UpToDate"
MAX_AGE_S = 3600
_NO_ADVISORIES: frozenset[str] | None = frozenset()
# Intel's names. Revoked is not among them: no policy can accept it.
TCB_STATUSES = (
    UP_TO_DATE,
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)


@dataclass(frozen=True, slots=True)
class Policy:
    """None, where it may stand, is the word `any`."""

    measurements: Mapping[str, frozenset[bytes]]  # those of MEASUREMENTS that are named
    config: frozenset[bytes] | None
    models: frozenset[ModelClaim] | None
    tcb_statuses: frozenset[str] = frozenset({UP_TO_DATE})
    advisories: frozenset[str] | None = _NO_ADVISORIES
    allow_simulated: bool = False
    max_age_s: int = MAX_AGE_S
    collateral_file: Path | None = None
    pccs_url: str | None = None


def measured(report: TdReport) -> dict[str, bytes]:
    """The measurements of a report, by the names that policies have for them."""
    return dict(zip(MEASUREMENTS, (report.mr_td, *report.rt_mrs, report.mr_config_id), strict=True))


def read_policy(path: Path) -> Policy:
    """Raises PolicyError. A collateral file in it is relative to it."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: the policy cannot be read: {error}") from error
    return parse_policy(text, str(path), path.parent)


def parse_policy(text: str, source: str = "policy", directory: Path | None = None) -> Policy:
    """Raises PolicyError, for unknown keys and wrong types too."""
    try:
        found = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise PolicyError(f"{source}: this is no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise PolicyError(f"{source}: it is nested too deeply for a policy") from error
    top = _Section(source, "", found)
    version = top.needed("version", lambda at: at)
    if version.found != "1":
        raise version.wrong("this Torchkeep reads version 1")
    tcb = top.section("tcb")
    collateral = top.section("collateral")
    policy = Policy(
        measurements=_measurements(top),
        config=top.needed("config", lambda at: at.allowed(DIGEST_BYTES)),
        models=top.needed("models", _models),
        tcb_statuses=tcb.optional("statuses", _statuses, frozenset({UP_TO_DATE})),
        advisories=tcb.optional("advisories", _advisories, _NO_ADVISORIES),
        allow_simulated=top.optional("allow_simulated", _Value.boolean, False),
        max_age_s=top.optional("max_age_s", _Value.seconds, MAX_AGE_S),
        collateral_file=collateral.optional(
            "file", lambda at: (directory or Path()) / at.text(), None
        ),
        pccs_url=collateral.optional("pccs", _Value.url, None),
    )
    for section in (top, tcb, collateral):
        section.done()
    if policy.collateral_file is not None and policy.pccs_url is not None:
        raise PolicyError(f"{source}: collateral: one of file and pccs was expected, not both")
    return policy


def policy_text(report: TdReport, policy: Policy) -> str:
    """A first policy file: what this server is measured to be, and what else `policy` says."""
    digests = {name: value.hex() for name, value in measured(report).items()}
    lines = [
        "# What a server must be before anything is sent to it: docs/attestation.md.",
        "# Written from evidence that was seen, not from sources: compare each value with what you",
        "# built or were told, before you trust it.",
        "version: 1",
        "measurements:",
        f"  mr_td: {digests['mr_td']}  # firmware",
        f"  rtmr0: {digests['rtmr0']}  # how the firmware was configured",
        f"  rtmr1: {digests['rtmr1']}  # kernel",
        f"  rtmr2: {digests['rtmr2']}  # its command line and initrd",
        f"  # rtmr3: {digests['rtmr3']}  # grows at run time: events, loaded models",
        f"  mr_config_id: {digests['mr_config_id']}  # initdata",
        "tcb:",
        f"  statuses: [{', '.join(sorted(policy.tcb_statuses))}]",
        f"  advisories: {_list_text(policy.advisories)}",
        "# The effective configuration and the sandbox of the server.",
        f"config: {ANY if policy.config is None else _list_text({c.hex() for c in policy.config})}",
        "# What may be served, as name, version and digest of the archive (`torchkeep inspect`).",
        *_models_text(policy.models),
        f"max_age_s: {policy.max_age_s}  # after that a client asks for evidence again",
    ]
    if policy.allow_simulated:
        lines.append("allow_simulated: true  # SIMULATED EVIDENCE PROVES NOTHING: for tests only")
    if policy.pccs_url:
        lines += ["collateral:", f"  pccs: {policy.pccs_url}"]
    elif policy.collateral_file:
        lines += ["collateral:", f"  file: {_quoted(str(policy.collateral_file.absolute()))}"]
    return "\n".join([*lines, ""])


def _list_text(values: frozenset[str] | set[str] | None) -> str:
    return ANY if values is None else f"[{', '.join(sorted(values))}]"


def _models_text(models: frozenset[ModelClaim] | None) -> list[str]:
    if models is None:
        return [f"models: {ANY}"]
    if not models:
        return ["models: {}"]
    lines, before = ["models:"], None
    for model in sorted(models):
        if model.name != before:
            lines.append(f"  {_quoted(model.name)}:")
        before = model.name
        lines.append(f"    {_quoted(model.version)}: {model.digest.hex()}")
    return lines


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 20)).strip()


def _measurements(top: "_Section") -> dict[str, frozenset[bytes]]:
    value = top.needed("measurements", lambda at: at)
    if value.found == ANY:
        return {}
    section = _Section(top.source, "measurements.", value.found)
    named: dict[str, frozenset[bytes]] = {}
    for name in MEASUREMENTS:
        allowed = section.optional(name, lambda at: at.allowed(MEASUREMENT_BYTES), None)
        if allowed is not None:
            named[name] = allowed
    section.done()
    if not named:
        raise value.wrong(f"name at least one of {', '.join(MEASUREMENTS)}, or write `any`")
    return named


def _models(value: "_Value") -> frozenset[ModelClaim] | None:
    if value.found == ANY:
        return None
    models = set[ModelClaim]()
    for name, versions in value.mapping().items():
        for version, digests in versions.mapping().items():
            models |= {
                ModelClaim(name, version, digest) for digest in digests.digests(DIGEST_BYTES)
            }
    return frozenset(models)


def _statuses(value: "_Value") -> frozenset[str]:
    statuses = frozenset(value.words(TCB_STATUSES))
    if not statuses:
        raise value.wrong(f"an empty list allows nothing; {UP_TO_DATE} is the default")
    return statuses


def _advisories(value: "_Value") -> frozenset[str] | None:
    return None if value.found == ANY else frozenset(value.words())


class _Loader(yaml.BaseLoader):
    """All scalars are text; a key that stands twice is refused: which one was meant?"""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=True)
        if len(mapping) != len(node.value):
            raise yaml.constructor.ConstructorError(
                None, None, "a key stands twice", node.start_mark
            )
        return mapping


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of the file, and where it stands."""

    source: str
    key: str
    found: Any

    def wrong(self, expected: str) -> PolicyError:
        return PolicyError(f"{self.source}: {self.key}: {expected}")

    def text(self) -> str:
        if not isinstance(self.found, str) or not self.found:
            raise self.wrong("a text was expected")
        return self.found

    def boolean(self) -> bool:
        if self.found not in ("true", "false"):
            raise self.wrong("true or false was expected")
        return bool(self.found == "true")

    def seconds(self) -> int:
        text = self.text()
        if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 7 * 86400:
            raise self.wrong("a number of seconds was expected, from 1 to a week's")
        return int(text)

    def url(self) -> str:
        # Collateral is signed, so http will do.
        if not self.text().startswith(("https://", "http://")):
            raise self.wrong("a URL was expected: https://host")
        return self.text()

    def words(self, known: tuple[str, ...] = ()) -> list[str]:
        """A list of texts; of these, if any are given."""
        if not isinstance(self.found, list) or not all(isinstance(one, str) for one in self.found):
            raise self.wrong("a list of words was expected, as in [first, second]")
        for word in self.found:
            if known and word not in known:
                raise self.wrong(f"{word!r} is none of {', '.join(known)}")
        return self.found

    def mapping(self) -> dict[str, "_Value"]:
        if not isinstance(self.found, dict):
            raise self.wrong("`key: value` lines were expected, or the word any")
        return {
            key: _Value(self.source, f"{self.key}.{key}", value)
            for key, value in self.found.items()
        }

    def allowed(self, length: int) -> frozenset[bytes] | None:
        return None if self.found == ANY else self.digests(length)

    def digests(self, length: int) -> frozenset[bytes]:
        """One digest, or a list of at least one."""
        texts = [self.found] if isinstance(self.found, str) else self.words()
        if not texts:
            raise self.wrong("an empty list allows nothing: name a digest, or write `any`")
        return frozenset(self._digest(text, length) for text in texts)

    def _digest(self, text: str, length: int) -> bytes:
        digits = text.removeprefix("sha256:") if length == DIGEST_BYTES else text
        try:
            digest = bytes.fromhex(digits)
        except ValueError:
            digest = b""
        if len(digits) != 2 * length or len(digest) != length:
            raise self.wrong(f"{2 * length} hexadecimal digits were expected, not {text[:100]!r}")
        return digest


class _Section:
    """A mapping of the file, whose keys must all be asked for."""

    def __init__(self, source: str, prefix: str, found: Any) -> None:
        if not isinstance(found, dict):
            at = prefix.rstrip(".") or "the policy"
            raise PolicyError(f"{source}: {at}: `key: value` lines were expected")
        self.source = source
        self._prefix = prefix
        self._found = found
        self._known: list[str] = []

    def section(self, name: str) -> "_Section":
        return _Section(self.source, f"{self._prefix}{name}.", self._value(name, {}).found)

    def needed(self, name: str, read: Callable[["_Value"], _T]) -> _T:
        value = self._value(name, None)
        if value.found is None:
            raise value.wrong("the policy must say this; the word any allows everything")
        return read(value)

    def optional(self, name: str, read: Callable[["_Value"], _T], default: _T) -> _T:
        value = self._value(name, None)
        return default if value.found is None else read(value)

    def done(self) -> None:
        """Raises PolicyError for the first key that nobody asked for."""
        for key in self._found:
            if key not in self._known:
                known = ", ".join(self._known)
                raise PolicyError(
                    f"{self.source}: {self._prefix}{key}: there is no such key; known are {known}"
                )

    def _value(self, name: str, default: Any) -> _Value:
        self._known.append(name)
        return _Value(self.source, f"{self._prefix}{name}", self._found.get(name, default))
