"""What a TDX quote says, read field by field.

Nothing here is verified: the verifier (`torchkeep.client`) checks signatures first. The layout is
that of Intel's "TDX DCAP Quote Generation Library and Quote Verification Library" API reference,
appendix A (quote formats 4 and 5); all numbers are little-endian.
"""

from dataclasses import dataclass

HEADER_BYTES = 48
BODY_BYTES = 584  # TD report 1.0
BODY_1_5_BYTES = 648  # TD report 1.5, which adds two fields at the end
TEE_TDX = 0x81
MAX_QUOTE_BYTES = 1 << 16
DEBUG = 1  # of TDATTRIBUTES: the host may read the memory

_BODY_OF_TYPE = {2: BODY_BYTES, 3: BODY_1_5_BYTES}


class QuoteError(ValueError):
    """What was given is no TDX quote; the text says why."""


@dataclass(frozen=True, slots=True)
class TdReport:
    """The body of a quote: a trusted domain, as the TDX module measured it."""

    tee_tcb_svn: bytes  # 16
    mr_seam: bytes  # 48, the TDX module
    td_attributes: int  # bits; DEBUG is one
    xfam: int
    mr_td: bytes  # 48, the initial memory: firmware
    mr_config_id: bytes  # 48, initdata in Confidential Containers
    mr_owner: bytes  # 48
    mr_owner_config: bytes  # 48
    rt_mrs: tuple[bytes, bytes, bytes, bytes]  # 48 each: kernel, command line, root, runtime
    report_data: bytes  # 64

    @property
    def is_debug(self) -> bool:
        return bool(self.td_attributes & DEBUG)


@dataclass(frozen=True, slots=True)
class Quote:
    """One quote; `raw` is all of it, with the signature."""

    version: int
    report: TdReport
    raw: bytes


def parse_quote(raw: bytes) -> Quote:
    """Raises QuoteError."""
    if not raw:
        raise QuoteError("the quote is empty")
    if len(raw) > MAX_QUOTE_BYTES:
        raise QuoteError(f"the quote has more than {MAX_QUOTE_BYTES} bytes")
    if len(raw) < HEADER_BYTES + BODY_BYTES:
        raise QuoteError(f"the quote has only {len(raw)} bytes")
    version, tee = _number(raw, 0, 2), _number(raw, 4, 4)
    if version not in (4, 5):
        raise QuoteError(f"the quote has version {version}, and only 4 and 5 are TDX's")
    if tee != TEE_TDX:
        raise QuoteError(f"the quote is of TEE type {tee:#x}, not of TDX ({TEE_TDX:#x})")
    start, length = HEADER_BYTES, BODY_BYTES
    if version == 5:
        kind, said, start = _number(raw, 48, 2), _number(raw, 50, 4), 54
        length = _BODY_OF_TYPE.get(kind, 0)
        if said != length or not length:
            raise QuoteError(f"the quote holds a body of type {kind} and {said} bytes")
    body = raw[start : start + length]
    if len(body) < length:
        raise QuoteError("the quote ends within its body")
    return Quote(version, _report(body), raw)


def _report(body: bytes) -> TdReport:
    def measurement(at: int) -> bytes:
        return body[at : at + 48]

    return TdReport(
        tee_tcb_svn=body[0:16],
        mr_seam=measurement(16),
        td_attributes=_number(body, 120, 8),
        xfam=_number(body, 128, 8),
        mr_td=measurement(136),
        mr_config_id=measurement(184),
        mr_owner=measurement(232),
        mr_owner_config=measurement(280),
        rt_mrs=(measurement(328), measurement(376), measurement(424), measurement(472)),
        report_data=body[520:584],
    )


def _number(raw: bytes, at: int, length: int) -> int:
    return int.from_bytes(raw[at : at + length], "little")
