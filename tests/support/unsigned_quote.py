"""A TDX quote that nobody signed, for whoever looks at what it says and no further."""

REPORT_DATA_AT = 568  # in a quote of version 4


def unsigned_quote(report_data: bytes) -> bytes:
    quote = bytearray(1000)
    quote[0], quote[4] = 4, 0x81
    quote[REPORT_DATA_AT : REPORT_DATA_AT + 64] = report_data
    return bytes(quote)
