"""What a plugin says about itself, and what it may not say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime.plugins import Endpoint, Request, ServerState, endpoint

DOCS = Path(__file__).resolve().parents[2] / "docs"
REQUEST = Request("GET", "/a", {}, {}, b"", ServerState(True, [], 1))


def test_a_marked_function_can_still_be_called() -> None:
    @endpoint("/hello/")
    def hello(request: Request) -> str:
        return request.method

    assert hello(REQUEST) == "GET"
    assert isinstance(hello, Endpoint)
    assert (hello.path, hello.port, hello.methods) == ("hello", "inference", ("GET",))


@pytest.mark.parametrize("path", ["", "/", "a/b", "a b", "a%20b", "é"])
def test_a_path_is_one_plain_segment(path: str) -> None:
    with pytest.raises(ValueError, match="is not one segment"):
        endpoint(path)


def test_a_port_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match='"metrics" is neither "inference" nor "management"'):
        endpoint("a", port="metrics")  # type: ignore[arg-type]


@pytest.mark.parametrize("methods", ["GET", [], ["get"], [""]])
def test_methods_are_a_list_of_capital_words(methods: Any) -> None:
    with pytest.raises(ValueError, match="is no list of methods"):
        endpoint("a", methods=methods)


@pytest.mark.parametrize("function", [lambda: "", lambda a, b: "", lambda *, a: ""])
def test_a_function_takes_the_request_and_nothing_else(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="must take one argument, the request"):
        endpoint("a")(function)


@pytest.mark.parametrize("name", ["execution_parameters.py", "sqlite_snapshots.py"])
def test_the_page_shows_the_example_as_it_is(name: str) -> None:
    page = (DOCS / "plugins.md").read_text()
    begin, end = (f"<!-- plugins/{name}: {one} -->" for one in ("begin", "end"))
    shown = page.partition(begin)[2].partition(end)[0]
    assert shown == f"\n\n```python\n{(DOCS / 'plugins' / name).read_text()}```\n\n"
