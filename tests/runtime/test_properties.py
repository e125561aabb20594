"""Java properties files, read as Java reads them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchkeep.runtime.properties import Property, format_property, parse_properties, substitute


def pairs(text: str) -> list[tuple[str, str]]:
    return [(one.key, one.value) for one in parse_properties(text)]


@pytest.mark.parametrize("text", ["a=b", "a:b", "a b", "a = b", "a : b", " \ta\t=\tb", "a\fb"])
def test_equals_colon_and_blank_end_the_key(text: str) -> None:
    assert pairs(text) == [("a", "b")]


def test_only_the_first_separator_counts() -> None:
    assert pairs("vmargs=-Dlog4j=file:///x y\nurl http://h:1") == [
        ("vmargs", "-Dlog4j=file:///x y"),
        ("url", "http://h:1"),
    ]


def test_comments_and_blank_lines_hold_nothing() -> None:
    assert parse_properties("# a=b\n\n  ! c=d\n \t\n") == []


def test_a_hash_inside_a_value_is_no_comment() -> None:
    assert pairs("a=b # c") == [("a", "b # c")]


def test_value_keeps_its_trailing_blanks() -> None:
    assert pairs("a=b \n") == [("a", "b ")]


def test_a_key_alone_has_an_empty_value() -> None:
    assert pairs("a\nb=\n") == [("a", ""), ("b", "")]


def test_backslash_continues_a_line_and_eats_its_indent() -> None:
    assert parse_properties("x=1\r\na=b,\\\r\n   # c\nd=e") == [
        Property("x", "1", 1),
        Property("a", "b,# c", 2),
        Property("d", "e", 4),
    ]


def test_two_backslashes_are_one_and_continue_nothing() -> None:
    assert pairs("a=b\\\\\nc=d") == [("a", "b\\"), ("c", "d")]


def test_a_backslash_at_the_end_of_the_file_is_dropped() -> None:
    assert pairs("a=b\\") == [("a", "b")]


def test_escapes() -> None:
    text = r"a\:b\=c\ d=\t\n\u00e9\:\q"
    assert pairs(text) == [("a:b=c d", "\t\n\u00e9:q")]


def test_malformed_unicode_escape_names_its_line() -> None:
    with pytest.raises(ValueError, match=r"line 2: Malformed"):
        parse_properties("a=b\nc=\\u12x4")


def test_dollars_are_replaced_from_the_environment() -> None:
    assert substitute("http://$$HOST$$:$$PORT$$/${PORT}", {"HOST": "h", "PORT": "1"}) == (
        "http://h:1/${PORT}"
    )


def test_an_unset_variable_is_an_error_in_torchserves_words() -> None:
    with pytest.raises(ValueError, match=r"^Invalid Environment Variable NOPE$"):
        substitute("$$NOPE$$", {})


@given(st.text())
def test_any_text_is_read_or_refused_with_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_properties(text)


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_what_java_escapes_comes_back(values: dict[str, str]) -> None:
    def escaped(text: str) -> str:
        units = text.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

    # Beyond the first plane Java writes two halves, which stay two characters here.
    flat = {k: v for k, v in values.items() if max(map(ord, k + v), default=0) < 0xD800}
    text = "".join(f"{escaped(key)}={escaped(value)}\n" for key, value in flat.items() if key)
    assert dict(pairs(text)) == {key: value for key, value in flat.items() if key}


@given(st.text(), st.text())
def test_what_is_written_reads_the_same(key: str, value: str) -> None:
    line = format_property(key, value)
    assert line.isascii()
    if key:
        assert pairs(line) == [(key, value)]
