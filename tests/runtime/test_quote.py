"""Quotes read field by field: genuine ones where they are there, and what is none."""

import dcap_qvl
import pytest
from genuine_quotes import genuine

from torchkeep.runtime.quote import QuoteError, parse_quote


@pytest.mark.parametrize(
    ("name", "version"),
    [("tdx_quote", 4), ("tdx_quote_outdated", 5), ("tdx_quote_debug_td.dat", 4)],
)
def test_genuine_quotes_are_read_as_another_reader_does(name: str, version: int) -> None:
    raw = genuine(name)
    ours, theirs = parse_quote(raw), dcap_qvl.parse_quote(raw)
    assert ours.version == version
    for mine, other in [
        ("mr_td", "mr_td"),
        ("mr_config_id", "mr_config_id"),
        ("mr_owner", "mr_owner"),
        ("mr_owner_config", "mr_owner_config"),
        ("mr_seam", "mr_seam"),
        ("report_data", "report_data"),
        ("tee_tcb_svn", "tee_tcb_svn"),
    ]:
        assert getattr(ours.report, mine) == bytes(getattr(theirs.report, other)), mine
    assert ours.report.rt_mrs == tuple(
        bytes(getattr(theirs.report, f"rt_mr{number}")) for number in range(4)
    )
    attributes = int.from_bytes(bytes(theirs.report.td_attributes), "little")
    assert ours.report.td_attributes == attributes


def test_debug_bit_is_read() -> None:
    assert parse_quote(genuine("tdx_quote_debug_td.dat")).report.is_debug
    assert not parse_quote(genuine("tdx_quote")).report.is_debug


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"\x04\0", "only 2 bytes"),
        (b"\x03\0" + b"\0" * 1000, "version 3"),
        (b"\x04\0\x02\0" + b"\0" * 1000, "TEE type 0x0"),
        (b"\x05\0\x02\0\x81" + b"\0" * 1000, "body of type 0"),
        (b"\x05\0\x02\0\x81".ljust(48, b"\0") + b"\x03\0\x88\x02\0\0".ljust(584, b"\0"), "within"),
        (b"\x04\0\x02\0\x81" + b"\0" * (1 << 16), "more than"),
    ],
)
def test_what_is_no_quote_is_named(raw: bytes, reason: str) -> None:
    with pytest.raises(QuoteError, match=reason):
        parse_quote(raw)
