"""The commands that a message names where an extra's package is missing."""

import builtins
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from nestvec.corpus.reading.readers import import_parquet
from nestvec.errors import NestvecError
from nestvec.system.extras import how_to_install
from nestvec.tools.quality.report.plots import draw_axes

ROOT: Final = Path(__file__).parents[2]
EXTRAS: Final[dict[str, list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
    "project"
]["optional-dependencies"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_commands_install_the_extra(extra: str) -> None:
    """What `make setup` is told to install holds every package of the extra."""
    command = re.match(
        r"`make setup(?: EXTRA=gpu(?= ))?(?: (EXTRAS?)=(\w+))?` in a checkout, `(.*)` ",
        how_to_install(extra),
    )
    assert command is not None
    assert command[3] == f"pip install 'nestvec[{extra}]'"
    lock = {"EXTRAS": f"extras/{command[2]}", "EXTRA": command[2], None: "cpu"}[command[1]]
    locked = (ROOT / f"requirements/{lock}.txt").read_text()
    for requirement in EXTRAS[extra]:
        name = re.split(r"[\[>~]", requirement)[0]
        assert re.search(rf"^{re.escape(name)}(\[[^]]*\])?==", locked, re.MULTILINE), name


@pytest.mark.parametrize(
    ("package", "extra", "call"),
    [
        ("pyarrow", "parquet", import_parquet),
        ("matplotlib", "quality", lambda: draw_axes("", "", "")),
    ],
)
def test_a_missing_package_is_told_with_its_commands(
    package: str, extra: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the error names the command for a checkout and the one for an installed package."""
    importing = builtins.__import__

    def refuse(name: str, *args: Any, **more: Any) -> ModuleType:
        if name.split(".", maxsplit=1)[0] == package:
            raise ModuleNotFoundError(name)
        return importing(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(NestvecError) as caught:
        call()
    assert how_to_install(extra) in str(caught.value)
    assert f"make setup EXTRAS={extra}" in str(caught.value)
