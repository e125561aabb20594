"""The last line of `make test`."""

from closing_line import closing_line


def test_it_adds_up_what_ran_side_by_side() -> None:
    first = "x\n===== 3 passed, 1 skipped, 2 deselected, 2 errors in 12.50s =====\n"
    second = "= 1 failed, 4 passed, 1 xfailed, 1 error in 103.00s (0:01:43) =\n"
    line = closing_line([first, second])
    counts = "1 failed, 7 passed, 1 skipped, 2 deselected, 1 xfailed, 3 error"
    assert line == f"===== {counts} in 103.00s ====="


def test_a_run_without_an_end_is_an_error() -> None:
    assert closing_line(["", "== 1 passed in 0.10s =="]) == "===== 1 passed, 1 error in 0.10s ====="
