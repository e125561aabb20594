"""Java properties files: text in, properties with their line numbers out, and back.

A *natural* line may go on with a backslash at its end; the whole is a *logical* line, and a
property carries the number of the natural line it starts on, for messages.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_BLANKS = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_SPELLED = {spelled: f"\\{letter}" for letter, spelled in _ESCAPES.items()}
_REFERENCE = re.compile(r"\$\$([^$]+)\$\$")


@dataclass(frozen=True, slots=True)
class Property:
    key: str
    value: str
    line: int


def decode_properties(content: bytes) -> str:
    """UTF-8 where it is that, as people write it; else Java's encoding of such files."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def parse_properties(text: str) -> list[Property]:
    """Every property in file order; of doubles the last counts, as in Java, but all are here."""
    return [_split(logical, number) for number, logical in _logical_lines(text)]


def format_property(key: str, value: str) -> str:
    """One line, in ASCII, that reads as this property."""
    return f"{_escape(key, ' ')}={_escape(value, '', is_value=True)}\n"


def substitute(value: str, environ: Mapping[str, str]) -> str:
    """Replace each `$$NAME$$`; `${NAME}` is no syntax of TorchServe's."""

    def lookup(match: re.Match[str]) -> str:
        if match[1] not in environ:
            raise ValueError(f"Invalid Environment Variable {match[1]}")
        return environ[match[1]]

    return _REFERENCE.sub(lookup, value)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    # Not splitlines(): it also splits at form feeds, which are blanks here.
    natural = iter(enumerate(re.split(r"\r\n|\r|\n", text), start=1))
    for number, line in natural:
        line = line.lstrip(_BLANKS)
        if not line or line[0] in "#!":
            continue
        while _is_continued(line):
            _, following = next(natural, (0, ""))
            line = line[:-1] + following.lstrip(_BLANKS)
        yield number, line


def _is_continued(line: str) -> bool:
    backslashes = len(line) - len(line.rstrip("\\"))
    return backslashes % 2 == 1


def _split(logical: str, line: int) -> Property:
    """The key ends at the first bare `=`, `:` or blank; the value keeps its trailing blanks."""
    match = re.match(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*", logical, re.DOTALL)
    assert match is not None  # every part of the pattern may be empty
    return Property(_unescape(match[1], line), _unescape(logical[match.end() :], line), line)


def _escape(text: str, blanks: str, is_value: bool = False) -> str:
    def spell(character: str) -> str:
        if character in _SPELLED:
            return _SPELLED[character]
        if character in "\\=:#!" or character in blanks:
            return f"\\{character}"
        if " " <= character <= "~":
            return character
        units = character.encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

    escaped = "".join(map(spell, text))
    # Blanks before a value belong to the separator, unless they are escaped.
    return f"\\{escaped}" if is_value and escaped.startswith(" ") else escaped


def _unescape(text: str, line: int) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2] == "u":
            raise ValueError(f"line {line}: Malformed \\uxxxx encoding.")
        return _ESCAPES.get(match[2], match[2])

    units = re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.?))", plain, text, flags=re.DOTALL)
    # Java spells a character beyond 16 bits as two.
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
