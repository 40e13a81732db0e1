"""`nestvec embed --ray` as a command line, up to where the cluster begins."""

import importlib.util
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from nestvec.cli import group
from nestvec.cli.corpus import embed_ray
from nestvec.cli.corpus.ray_flags import REFUSED
from nestvec.config.settings import Settings
from nestvec.errors import FormatError
from nestvec.ray.note import RunNote, completed, write_note
from nestvec.ray.run import InterruptedRunError, RayRun, RaySummary, import_ray, note_of
from nestvec.ray.tally import Tally, Totals

POSTGRES = "postgresql://localhost/notes"


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A Parquet file with a text and more."""
    path = tmp_path / "in.parquet"
    columns = {"id": ["a"], "text": ["x"], "title": ["y"], "year": [1], "embedding": [[1.0]]}
    pq.write_table(pa.table(columns), path)
    return str(path)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RayRun, str]]:
    """What would have been run, on a cluster that has done it at once."""
    seen: list[tuple[RayRun, str]] = []

    def run(run: RayRun, address: str, on_start: Any, on_progress: Any) -> RaySummary:
        seen.append((run, address))
        tally = Tally()
        on_start(9, 2)
        # A batch that was done twice does not run over the end.
        for node in ("n1", "n2", "n1", "n1"):
            tally.add(node, 2, 10, 1)
            on_progress(tally.totals())
        if address == "stop":
            raise InterruptedRunError(5, 9)
        return RaySummary(9, 2, tally.totals(), embed_ray_pool())

    monkeypatch.setattr(embed_ray, "import_ray", lambda: None)
    monkeypatch.setattr(embed_ray, "run_on_ray", run)
    return seen


def embed_ray_pool() -> Any:
    """A pool of two actors."""
    from nestvec.ray.pool import ActorPool

    return ActorPool(2, 1, 2, 2)


def embed(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(group, ["embed", *arguments])


def test_flags_become_a_run(
    source: str, runs: list[tuple[RayRun, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actors get what decides vectors, from flags and variables alike, and no keys; what was done is told."""
    monkeypatch.setenv("NESTVEC_WEIGHT_STORAGE", "fp16")
    monkeypatch.setenv("NESTVEC_API_KEYS", "sk-secret")
    line = [
        "--model",
        "static",
        "--worker-threads",
        "3",
        "--dimensions",
        "64",
        "--truncate",
        "start",
    ]
    more = ["--keep-columns", "year", "--with-text", "--provider", "cpu", "--ray-actors", "7"]
    done = embed("--ray", source, str(tmp_path / "out"), *line, *more)
    assert done.exit_code == 0, done.output
    ((run, address),) = runs
    assert (address, run.cpus, run.actors, run.uses_gpus, run.batch_rows) == ("", 3, 7, False, 1024)
    assert (run.id_column, run.columns) == ("id", ["id", "text", "year"])
    assert run.embed == {
        "settings": {
            "model": "static",
            "worker_threads": 3,
            "provider": "cpu",
            "weight_storage": "fp16",
        },
        "text_column": "text",
        "id_column": "id",
        "keep_columns": ["id", "year", "text"],
        "dimensions": 64,
        "dtype": "float32",
        "truncate": "start",
        "output": "dense",
    }
    assert "9 vectors (2 texts by an earlier run) from 40 tokens" in done.output
    assert "4 texts truncated" in done.output
    assert "2 actors of 2 CPUs and 1 GPU on 2 nodes (25%, 75% batches)" in done.output


def test_a_target_may_be_a_url(source: str, runs: list[tuple[RayRun, str]], tmp_path: Path) -> None:
    """An address is of an object store unless it is one of a vector store."""
    assert embed("--ray", f"file://{source}", f"file://{tmp_path}/out").exit_code == 0
    assert runs[0][0].target.path == f"{tmp_path}/out"
    assert runs[0][0].sources.paths == [source]


@pytest.mark.parametrize("flag", ["--ray=10.0.0.1:6379", "--ray=auto"])
def test_an_address_stands_behind_an_equals_sign(
    flag: str, source: str, runs: list[tuple[RayRun, str]], tmp_path: Path
) -> None:
    """So `--ray` alone never takes the first source for an address; all columns are all but the text."""
    flags = ["--keep-columns", "all", "--template", "{title} {year}", "--output", "sparse"]
    assert embed(source, flag, str(tmp_path / "out"), *flags).exit_code == 0
    ((run, address),) = runs
    assert address == flag.partition("=")[2]
    assert run.embed["keep_columns"] == ["id", "title", "year", "embedding"]
    assert run.embed["template"] == "{title} {year}"


def test_ctrl_c_says_what_is_kept(
    source: str, runs: list[tuple[RayRun, str]], tmp_path: Path
) -> None:
    """An interrupted run ends as a command does, and says how to go on."""
    done = embed("--ray=stop", source, str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "interrupted: 5 of 9 texts are kept; the same command goes on from here" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ray", "--chunk", "markdown"], "--chunk does not go with --ray: cut documents first"),
        (["--ray", "--late"], "--late does not go with --ray"),
        (["--ray", "--append"], "--append does not go with --ray: a folder holds one run"),
        (["--ray", "--id", "sha256"], "--id does not go with --ray: ids are those of --id-column"),
        (["--ray", "--per", "line"], "--per does not go with --ray"),
        (["--ray", "--manifest", "m.json"], "--manifest does not go with --ray"),
        (["--ray", "--device-id", "1"], "--device-id does not go with --ray: Ray gives each actor"),
        (["--ray", "--url", "http://h"], "--url (or NESTVEC_URL) does not go with --ray"),
        (["--ray-actors", "2"], "--ray-actors goes with --ray"),
        (["--ray", "--id-column", "key"], "no column 'key' (--id-column); there are: id, text"),
        (["--ray", "--text-column", "body"], "no column 'body' (--text-column)"),
        (["--ray", "--keep-columns", "no"], "no column 'no' (--keep-columns)"),
        (["--ray", "--context-column", "no"], "no column 'no' (--context-column)"),
        (["--ray", "--keep-columns", "embedding"], "'embedding' is a column of the output's own"),
        (["--ray", "--with-text", "--template", "{title}"], "--with-text keeps one column"),
        (["--ray", "--recipe", "none"], "the settings have no recipe 'none'"),
    ],
)
def test_what_does_not_go_with_a_cluster_is_refused_by_name(
    arguments: list[str],
    said: str,
    source: str,
    runs: list[tuple[RayRun, str]],
    tmp_path: Path,
) -> None:
    """Flags that have no meaning there are told before any work, with the way out."""
    done = embed(source, str(tmp_path / "out"), *arguments)
    assert done.exit_code
    assert said in " ".join((done.output + str(done.exception)).split())
    assert not runs


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["-", "out"], "'-' is none"),
        (["IN", "-"], "'-' is none"),
        (["IN", POSTGRES], "writes a folder of Parquet; fill"),
        (["none/*.parquet", "out"], "no Parquet file (.parquet) there"),
    ],
)
def test_paths_that_a_cluster_cannot_take(
    paths: list[str], said: str, source: str, runs: list[tuple[RayRun, str]]
) -> None:
    """It reads Parquet files and writes a folder of them."""
    done = embed("--ray", *(path.replace("IN", source) for path in paths))
    assert said in done.output + str(done.exception)
    assert not runs


def test_a_run_that_is_complete_needs_no_cluster(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command again says so, whatever it says about machines; one of other options is refused."""
    target = tmp_path / "out"
    seen: list[RayRun] = []

    def keep(run: RayRun, *_: Any) -> RaySummary:
        seen.append(run)
        return RaySummary(0)

    with monkeypatch.context() as patch:
        patch.setattr(embed_ray, "import_ray", lambda: None)
        patch.setattr(embed_ray, "run_on_ray", keep)
        assert embed("--ray", source, str(target)).exit_code == 0
    note: RunNote = note_of(seen[0], {"nestvec.space": "ab"})
    write_note(seen[0].target, completed(note))
    monkeypatch.setattr(embed_ray, "import_ray", lambda: None)
    monkeypatch.setattr("nestvec.ray.run.import_ray", lambda: None)
    again = embed("--ray", source, str(target), "--worker-threads", "2", "--ray-batch", "7")
    assert "0 vectors, complete already" in again.output
    other = embed("--ray", source, str(target), "--dimensions", "5")
    assert "holds a run with other options" in str(other.exception)
    assert Totals().texts == 0
    tally = Tally()
    tally.fail("the first")
    tally.fail("another")
    assert tally.problem() == "the first"


def test_ray_that_is_missing_is_told_with_its_commands(source: str, tmp_path: Path) -> None:
    """Where Ray is not installed the error says how to get it."""
    if importlib.util.find_spec("ray") is not None:
        pytest.skip("Ray is installed here")
    with pytest.raises(FormatError, match="make setup EXTRAS=ray"):
        import_ray()
    done = embed("--ray", source, str(tmp_path / "out"))
    assert "pip install 'nestvec[ray]'" in str(done.exception)


def test_each_flag_of_embed_is_taken_or_refused() -> None:
    """A flag that a cluster would pass over unsaid is a surprise; a new one is decided about here."""
    taken = {
        *("sources", "target", "text_column", "template", "context_column", "id_column"),
        *("keep_columns", "with_text", "dimensions", "truncate", "prompt_name", "layers"),
        *("map_name", "output_dtype", "output", "recipe", "url"),
        *("ray_address", "ray_actors", "ray_batch"),
    }
    settings = {"config", *Settings.model_fields}
    command = group.get_command(click.Context(group), "embed")
    assert command is not None
    names = {parameter.name for parameter in command.params}
    assert not names - settings - taken - REFUSED.keys()
    assert taken | REFUSED.keys() <= names


@pytest.mark.parametrize("flag", [("--group-column", "g"), ("--pictures",)])
def test_groups_and_pictures_are_refused(source: str, flag: tuple[str, ...]) -> None:
    """By name, and with the reason."""
    result = embed("--ray", *flag, source, "out")
    assert result.exit_code == click.UsageError.exit_code
    assert f"{flag[0]} does not go with --ray: " in result.output
