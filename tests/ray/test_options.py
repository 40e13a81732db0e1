"""What `Embed` and a run may be told, the pool of a cluster, and the note in a folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from nestvec.errors import FormatError, InputError
from nestvec.ray.folders import ArrowPath, arrow_path, find_parquet
from nestvec.ray.ids import count_rows, id_hashes, refuse_doubled_ids
from nestvec.ray.note import NAME, RunNote, check_note, completed, read_note, write_note
from nestvec.ray.options import table_job
from nestvec.ray.pool import ActorPool, plan_pool, rows_of_files
from pyarrow import parquet as pq
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dimension": 3}, "there is no option 'dimension'; there are: context_column"),
        ({"dtype": "bfloat16"}, "'dtype' must be one of 'float32', 'float16'"),
        ({"truncate": "no"}, "'truncate' must be one of"),
        ({"role": "title"}, "'role' must be 'query' or 'document'"),
        ({"keep_columns": "id"}, "'keep_columns' must be a list of names"),
    ],
)
def test_options_that_cannot_be_are_named(options: Any, said: str) -> None:
    """A misspelt option or value is told with what there is."""
    with pytest.raises(InputError, match=said):
        table_job(options)


CPU, GPU = {"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0}


@pytest.mark.parametrize(
    ("nodes", "asked", "pool"),
    [
        # Four CPUs an actor; one of the cluster's is left to reading and writing, which costs the last actor.
        ([CPU, CPU], {}, ActorPool(4, 0, 3, 3)),
        ([CPU, CPU, {"CPU": 1.0}], {"cpus": 4}, ActorPool(4, 0, 4, 4)),
        ([{"CPU": 4.0}], {}, ActorPool(3, 0, 1, 1)),
        ([{"CPU": 2.0}, {"CPU": 64.0}], {}, ActorPool(2, 0, 31, 31)),
        ([{"CPU": 1.0}] * 4, {}, ActorPool(1, 0, 3, 3)),
        # A head that takes no work, and a node without a GPU, count for nothing.
        ([{}, CPU, GPU], {}, ActorPool(4, 1, 2, 2)),
        ([CPU, GPU], {"uses_gpus": False, "cpus": 2}, ActorPool(2, 0, 11, 11)),
        ([CPU], {"cpus": 2, "actors": 20}, ActorPool(2, 0, 20, 3)),
        # What passes over finished rows has a CPU to itself.
        ([{"CPU": 1.0}] * 4, {"resumes": True}, ActorPool(1, 0, 2, 2)),
        ([{"CPU": 4.0}], {"resumes": True}, ActorPool(2, 0, 1, 1)),
    ],
)
def test_the_pool_fits_the_cluster(nodes: Any, asked: Any, pool: ActorPool) -> None:
    """Actors reserve the CPUs and GPUs that they use, and leave a CPU for files."""
    assert plan_pool(nodes, **asked) == pool
    assert pool.first == min(pool.actors, pool.fitting)


@pytest.mark.parametrize(
    ("nodes", "asked"),
    [
        ([], {}),
        ([{"CPU": 2.0}], {"resumes": True}),
        ([{"CPU": 1.0}], {}),
        ([CPU], {"cpus": 9}),
        ([CPU], {"uses_gpus": True}),
    ],
)
def test_a_cluster_without_room_is_told(nodes: Any, asked: Any) -> None:
    """Where no actor fits beside reading and writing, there is an error and not a run that waits for ever."""
    with pytest.raises(FormatError, match=r"nodes has|fits on no node"):
        plan_pool(nodes, **asked)


def test_files_are_few_and_not_too_large() -> None:
    """A file holds a sixteenth of an actor's part: at least a batch, at most 65,536 rows."""
    pool = ActorPool(4, 0, 4, 4)
    assert [rows_of_files(rows, 1024, pool) for rows in (100, 640_000, 10**9)] == [
        1024,
        10_000,
        65_536,
    ]


def write(path: Path, ids: list[Any]) -> None:
    """Write a Parquet file of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids}), path)


def test_files_are_found_by_paths_folders_and_globs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, sorted; what is hidden, a run's note, or no Parquet is left out of folders."""
    for name in (
        "in/b.parquet",
        "in/a.PARQUET",
        "in/x/c.parquet",
        "in/.d.parquet",
        "in/_e/f.parquet",
    ):
        write(tmp_path / name, ["i"])
    (tmp_path / "in/g.txt").write_text("no")
    monkeypatch.chdir(tmp_path)

    def found(*patterns: str) -> list[str]:
        files = find_parquet(patterns)
        assert [entry[0] for entry in files.identity] == files.paths
        return [Path(path).relative_to(tmp_path).as_posix() for path in files.paths]

    assert found("in") == ["in/a.PARQUET", "in/b.parquet", "in/x/c.parquet"]
    assert found("in/*.parquet", str(tmp_path / "in/b.parquet")) == ["in/b.parquet"]
    assert found("*/?/[a-c].parquet") == ["in/x/c.parquet"]
    assert found(f"file://{tmp_path}/in/*.parquet") == ["in/b.parquet"]
    for pattern, said in {
        "in/**/*.parquet": "name the folder before",
        "none/*.parquet": "no Parquet file",
        "in/g.txt": "reads Parquet files",
        "nosuch://x": "no file system of Arrow",
    }.items():
        with pytest.raises(FormatError, match=said):
            find_parquet([pattern])


NOTE = RunNote([["in/a.parquet", 10, 5]], {"embed": {"dimensions": 8}}, {"nestvec.space": "ab"}, 3)


def test_a_folder_tells_its_run(tmp_path: Path) -> None:
    """An empty folder is free, one with a note is known again, and one that holds something else is refused."""
    folder = arrow_path(str(tmp_path / "out"))
    assert read_note(folder, "out") is None
    write_note(folder, NOTE)
    assert read_note(folder, "out") == NOTE
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]
    write_note(folder, completed(NOTE))
    assert read_note(folder, "out") == replace(NOTE, is_complete=True)
    (tmp_path / "out" / NAME).write_text(json.dumps({"what": 1}))
    with pytest.raises(FormatError, match="cannot be read"):
        read_note(folder, "out")
    (tmp_path / "out" / NAME).rename(tmp_path / "out" / "other.json")
    with pytest.raises(FormatError, match="is not empty, and holds no run"):
        read_note(folder, "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sources": [["in/a.parquet", 10, 6]]}, "a run of other sources, or of these before"),
        ({"options": {"embed": {"dimensions": 16}}}, "a run with other options"),
        ({"model": {"nestvec.space": "cd"}}, r"by another model or space \(ab\)"),
    ],
)
def test_another_run_is_refused_by_what_differs(change: Any, said: str) -> None:
    """A run that is not the same is not gone on with, and the error says why."""
    assert check_note(NOTE, replace(NOTE, rows=0), "out") == NOTE
    with pytest.raises(FormatError, match=said):
        check_note(NOTE, replace(NOTE, **change), "out")


def test_rows_are_counted_without_what_is_pending(tmp_path: Path) -> None:
    """Ids that Ray has noted as begun are not counted as kept."""
    folder = arrow_path(str(tmp_path))
    assert count_rows(folder.inside("none")) == 0
    write(tmp_path / "x_000000.parquet", ["a", "b"])
    write(tmp_path / "x_000001.pending.parquet", ["c"])
    assert count_rows(folder) == 2


def test_contents_are_there_whole_and_folders_go(tmp_path: Path) -> None:
    """A file is written under another name first, on a disk; an object store has no need of that."""
    store = ArrowPath(SubTreeFileSystem(str(tmp_path), LocalFileSystem()), "run", is_local=False)
    store.inside("a").write(b"one")
    store.inside("a").write(b"two")
    assert store.inside("a").read() == b"two"
    assert store.inside("b").read() is None
    assert store.beside(".more").path == "run.more"
    store.remove()
    store.remove()
    assert store.entries() == []


def test_ids_are_text_or_whole_numbers() -> None:
    """A row without an id, and one of another type, are refused."""
    assert id_hashes(pa.array([7, -1, 7]), "id").tolist() == [7, 2**64 - 1, 7]
    for wrong in (pa.array(["a", None]), pa.array([1.5])):
        with pytest.raises(FormatError, match="column 'id'"):
            id_hashes(wrong, "id")


def test_an_id_that_comes_twice_is_named(tmp_path: Path) -> None:
    """Across files too, by a look at the hashes first."""
    write(tmp_path / "a.parquet", [1, 2, 3])
    write(tmp_path / "b.parquet", [4, 5])
    assert refuse_doubled_ids(find_parquet([str(tmp_path)]), "id") == 5
    write(tmp_path / "c.parquet", [6, 2])
    with pytest.raises(FormatError, match="column 'id': the id 2 comes 2 times"):
        refuse_doubled_ids(find_parquet([str(tmp_path)]), "id")


def test_texts_as_ids(tmp_path: Path) -> None:
    """The same of ids that are text."""
    pytest.importorskip("pandas", reason="comes with Ray: `make test-ray`")
    write(tmp_path / "a.parquet", ["a", "b"])
    assert refuse_doubled_ids(find_parquet([str(tmp_path)]), "id") == 2
    write(tmp_path / "b.parquet", ["c", "b"])
    with pytest.raises(FormatError, match="column 'id': the id b comes 2 times"):
        refuse_doubled_ids(find_parquet([str(tmp_path)]), "id")
