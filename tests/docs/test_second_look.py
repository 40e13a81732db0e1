"""What `make check` lets pass on a second look, and what never."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs import second_look


@pytest.mark.parametrize(
    ("failed", "passes", "code"),
    [
        (["a.py::one"], True, 0),
        (["a.py::one", "a.py::two", "b.py::three"], True, 0),
        (["a.py::one"], False, 1),
        (["a.py::one", "a.py::two", "b.py::three", "b.py::four"], True, 1),
        ([], True, 1),
        (None, True, 1),
    ],
    ids=["one", "three", "fails-again", "four", "none", "no-run"],
)
def test_few_failures_that_pass_alone(
    failed: list[str] | None,
    passes: bool,  # noqa: FBT001
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They are named and let pass; more, a failure that stays, and a run that ended before its tests are not."""
    last_failed = tmp_path / "lastfailed"
    if failed is not None:
        last_failed.write_text(json.dumps(dict.fromkeys(failed, True)))
    looked_at: list[str] = []

    def look(names: Sequence[str]) -> bool:
        looked_at.extend(names)
        return passes

    assert second_look.main(last_failed, look) == code
    is_listed = "FAILED BESIDE OTHERS" in capsys.readouterr().out
    assert is_listed == (code == 0)
    assert sorted(looked_at) == (sorted(failed) if failed and len(failed) <= 3 else [])


def test_a_test_that_fails_alone_fails(tmp_path: Path) -> None:
    """By pytest itself."""
    test = tmp_path / "test_it.py"
    test.write_text("def test_good(): pass\ndef test_bad(): assert False\n")
    assert second_look.pass_alone([f"{test}::test_good"])
    assert not second_look.pass_alone([f"{test}::test_good", f"{test}::test_bad"])
