"""The built wheel: what it holds, and that it installs beside a project whose own package is called `app`."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
BOTH = """
import app, nestvec, nestvec.main, pathlib, sys
wheel = pathlib.Path(sys.argv[1])
assert app.WHOSE == "the user's"
assert wheel in pathlib.Path(nestvec.__file__).parents, nestvec.__file__
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as pip would lay it into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    unpacked = folder / "site-packages"
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as archive:
        archive.extractall(unpacked)
    return unpacked


def test_it_has_one_package_and_its_data(wheel: Path) -> None:
    """The wheel puts only `nestvec` into site-packages, with cards, templates, texts and migrations inside."""
    tops = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"nestvec"}
    package = wheel / "nestvec"
    assert (package / "cards/all-MiniLM-L6-v2.toml").is_file()
    for path in (ROOT / "app/nestvec").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert (package / path.relative_to(ROOT / "app/nestvec")).is_file(), path.name


def test_it_imports_beside_a_package_called_app(wheel: Path, tmp_path: Path) -> None:
    """The wheel imports in an environment that has a package of its own called `app`."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/__init__.py").write_text('WHOSE = "the user\'s"\n')
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(wheel)!r}]\n"
    subprocess.run([sys.executable, "-c", path + BOTH, str(wheel)], cwd=tmp_path, check=True)
