"""`nestvec model list|show|rm|du` and `nestvec cache`: what there is, what is on this disk, and what goes."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from nestvec.cli import group
from nestvec.cli.tables import bytes_text, count_text
from nestvec.model_store.artefacts.maps import store_map

from tests.engine.front.test_vector_plan import random_map
from tests.support.labelled_maps import concept_map, label_calibration
from tests.support.tiny import write_tiny_bert

CARD = """
name = "tiny-one"
aliases = ["org/tiny-one"]
license = "MIT"
trained_dimensions = [32, 8, 16]
[source]
kind = "folder"
name = "{folder}"
[facts]
dimensions = 32
max_tokens = 24
parameters = 22700000
"""


def invoke(*arguments: str) -> Result:
    """Run a verb."""
    return CliRunner().invoke(group, arguments, catch_exceptions=False)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with the export of a tiny model that has a card."""
    folder = write_tiny_bert(tmp_path / "tiny-one")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/one.toml").write_text(CARD.format(folder=folder))
    monkeypatch.setenv("NESTVEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NESTVEC_MODELS_DIR", str(tmp_path / "cards"))
    done = invoke("model", "pull", "one")
    assert done.exit_code == 0, done.output
    return tmp_path / "cache"


def age(folder: Path, days: float) -> None:
    """Make everything in a folder look as if it was last changed so many days ago."""
    then = time.time() - days * 86_400
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def test_the_list_tells_what_a_card_says_and_what_is_cached(cache: Path) -> None:
    """A row has dimensions, those that were trained, tokens, parameters, licence, and the size on the disk."""
    row = next(
        line for line in invoke("model", "list").output.splitlines() if line.startswith("one ")
    )
    assert row.split()[:7] == ["one", "32", "(16", "8)", "24", "22.7M", "MIT"]
    cached = invoke("model", "list", "--cached").output.splitlines()
    assert [line.split()[0] for line in cached] == ["NAME", "one"]
    rows = json.loads(invoke("model", "list", "--json").output)
    assert len(rows) > 60
    assert next(row for row in rows if row["name"] == "one")["cached_bytes"] > 10_000
    assert next(row for row in rows if row["name"] == "bge-m3")["cached_bytes"] == 0
    assert "bge-m3" not in invoke("model", "list", "--trained-dims").output


def test_show_knows_every_name(cache: Path) -> None:
    """A model is found by card, alias or file name, in any case; an unknown one gets suggestions."""
    for name in ("one", "Tiny-One", "org/tiny-one"):
        assert "dimensions   32 (16 8)" in invoke("model", "show", name).output
    assert str(cache) in invoke("model", "show", "one").output
    done = CliRunner().invoke(group, ["model", "show", "bge-m4"])
    assert "did you mean bge-m3" in str(done.exception)


def test_show_tells_maps(cache: Path) -> None:
    """Each map beside an export is described, with its labels; a damaged one is named."""
    (artefact,) = (cache / "artefacts").iterdir()
    assert "map " not in invoke("model", "show", "one").output
    store_map(artefact, concept_map(calibration=label_calibration()))
    path = store_map(artefact, random_map("turned"))
    path.with_name("torn.npz").write_bytes(path.read_bytes()[:99])
    shown = invoke("model", "show", "one").output.splitlines()
    assert [line for line in shown if line.startswith("map ")] == [
        "map          topics: concepts, 8 to 3 values, calibrated: sports, politics, Kunst é",
        "map          torn: damaged, and left out by servers",
        "map          turned: svd, 8 to 8 values",
    ]


def test_rm_removes_a_model_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    """The exports go; the folder that the card names stays, and so do other models."""
    other = write_tiny_bert(tmp_path / "other", seed=3)
    assert invoke("model", "pull", str(other)).exit_code == 0
    assert "other" in invoke("model", "du").output
    assert "freed" in invoke("model", "rm", "one").output
    assert "not on this disk" in invoke("model", "rm", "one").output
    assert (tmp_path / "tiny-one/model.safetensors").is_file()
    assert len(list((cache / "artefacts").iterdir())) == 1
    cached = invoke("model", "list", "--cached").output.splitlines()
    assert [line.split()[0] for line in cached] == ["NAME", "other"]
    assert "already exported" in invoke("model", "pull", str(other)).output


def test_prune_takes_what_is_of_no_use(cache: Path) -> None:
    """Drafts of killed processes and damaged exports go; whole ones stay, and so do drafts of running processes."""
    artefacts = cache / "artefacts"
    whole = next(artefacts.iterdir())
    draft, young, damaged = (artefacts / name for name in (".export-a", ".export-b", "0" * 32))
    for folder in (draft, young, damaged):
        folder.mkdir()
        (folder / "weights.bin").write_bytes(bytes(1000))
    age(draft, 1)
    dry = invoke("cache", "prune", "--dry-run").output
    assert "2.0 kB would be freed" in dry
    assert draft.is_dir()
    assert "2.0 kB freed" in invoke("cache", "prune").output
    assert {path.name for path in artefacts.iterdir()} == {whole.name, young.name}


def test_prune_by_age_counts_from_the_last_use(cache: Path) -> None:
    """What was used of late stays, however old its files are."""
    age(cache, 40)
    assert "40 days" in invoke("cache", "list").output
    assert invoke("model", "pull", "one", "--if-missing").exit_code == 0
    invoke("cache", "prune", "--unused-days", "30")
    assert json.loads(invoke("cache", "list", "--json").output)[0]["model"] == "tiny-one"
    age(cache, 40)
    invoke("cache", "prune", "--unused-days", "30")
    assert json.loads(invoke("cache", "list", "--json").output) == []


def test_no_cache_is_an_empty_list(tmp_path: Path) -> None:
    """A cache that does not exist holds nothing."""
    done = invoke("cache", "list", "--cache-dir", str(tmp_path / "none"))
    assert done.output.endswith(f"0 B in {tmp_path / 'none'}\n")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (90_358_272, "90.4 MB"),
        (99_960_000, "100 MB"),
        (999_700_000, "1.0 GB"),
        (3 * 10**15, "3000 TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """Sizes have three digits at most, in powers of a thousand."""
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("count", "text"), [(22_700_000, "22.7M"), (109_000_000, "109M"), (7_100_000_000, "7.1B")]
)
def test_counts(count: int, text: str) -> None:
    """Parameters are written as people do."""
    assert count_text(count) == text
