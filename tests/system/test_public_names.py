"""What is told of models: names and messages without the paths of the server's disk."""

import pytest
from nestvec.system.public_names import public_name, public_names, without_paths


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("folder /srv/models/mini", "folder mini"),
        ("card 'x': folder /a/b/c does not exist", "card 'x': folder c does not exist"),
        ("/a/b/config.json: the file is missing", "config.json: the file is missing"),
        ("hub org/name@0123abc", "hub org/name@0123abc"),
        ("pypi wordllama==1.0", "pypi wordllama==1.0"),
        ("https://host/a/b cannot be reached", "https://host/a/b cannot be reached"),
        ("see ~/models/x and '/b/c d'", "see x and 'c d'"),
        ("a/b and 1/2", "a/b and 1/2"),
        ("", ""),
    ],
)
def test_paths_are_cut_down(message: str, told: str) -> None:
    """Of an absolute path the last part is told; Hub ids and URLs stay whole."""
    assert without_paths(message) == told


def test_names_that_are_paths() -> None:
    """A name that is a path is told by its last part, and left out of aliases."""
    assert [public_name(name) for name in ("/a/b", "~/m/c", "./d", "org/e", "f:latest")] == [
        *("b", "c", "d", "org/e", "f:latest")
    ]
    assert public_names(["/a/b", "../x", "org/e", "f"]) == ["org/e", "f"]
