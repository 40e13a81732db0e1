"""20,000 texts on three nodes: shared out, a node killed, the driver killed, Ctrl-C, and an object store."""

import importlib.util
import os
import random
import re
import resource
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed; `make test-ray` installs it", allow_module_level=True)

import pyarrow as pa
import pyarrow.parquet as pq
from nestvec.ray import run as ray_run_module
from nestvec.ray.folders import arrow_path, find_parquet
from nestvec.ray.run import RayRun, run_on_ray
from nestvec.ray.tally import Totals

from tests.end_to_end.ray.local_cluster import (
    NODES,
    LocalCluster,
    check_rows,
    cpu_watch,
    embed,
    local_cluster,
    start_embed,
    wait_for_commits,
)
from tests.support.services import BUCKET, Service, s3_server

# On a busy machine a cluster alone takes minutes to start.
pytestmark = [
    pytest.mark.model,
    pytest.mark.process,
    pytest.mark.timeout(1200),
    # Ray's own, of its own settings.
    pytest.mark.filterwarnings("default"),
]
TEXTS: Final = 20_000
FILES: Final = 40
IDS: Final = [f"t{n}" for n in range(TEXTS)]
# Small enough that there are some 80 of them.
BATCH: Final = "256"
THREADS: Final = ("--worker-threads", "1", "--front-threads", "1")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, and what `nestvec embed` makes of them.

    Attributes:
        glob: Their files.
        folder: The folder of these.
        vectors: Their vectors by id.
        metadata: What the schema of its Parquet tells.
        cpu_s: CPU seconds that it took.
    """

    glob: str
    folder: Path
    vectors: dict[str, Any]
    metadata: dict[bytes, bytes]
    cpu_s: float


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Small files of short texts, as a crawl leaves them."""
    base = tmp_path_factory.mktemp("ray-corpus")
    folder, chance = base / "in", random.Random(33)
    folder.mkdir()
    words = [
        "".join(chance.choices("abcdefghilmnoprstuw", k=chance.randint(2, 9))) for _ in range(3000)
    ]
    for number in range(FILES):
        ids = IDS[number * TEXTS // FILES : (number + 1) * TEXTS // FILES]
        texts = [" ".join(chance.choices(words, k=chance.randint(4, 30))) for _ in ids]
        table = pa.table({"id": ids, "text": texts, "length": [len(text) for text in texts]})
        pq.write_table(table, folder / f"part{number:03}.parquet")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    target = base / "base.parquet"
    embed(f"{folder}/*.parquet", str(target), "--model", "static", *THREADS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    table = pq.read_table(target)
    matrix = np.array(table.column("embedding").to_pylist(), np.float32)
    vectors = dict(zip(table.column("id").to_pylist(), matrix, strict=True))
    return Corpus(f"{folder}/*.parquet", folder, vectors, table.schema.metadata, cpu_s)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An S3 store; its variables are there before any node starts, as they are on a cluster."""
    with s3_server(tmp_path_factory.mktemp("s3")) as service:
        os.environ.update(service.environment)
        yield service
        for name in service.environment:
            os.environ.pop(name, None)


@pytest.fixture(scope="module")
def running(store: Service) -> Iterator[LocalCluster]:
    """A cluster of a head and three nodes."""
    with local_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running: LocalCluster, store: Service) -> LocalCluster:
    """The cluster with all of its nodes."""
    os.environ.update(store.environment)
    running.fill()
    return running


def arguments(cluster: LocalCluster, corpus: Corpus, target: object) -> list[str]:
    """Return the command line of a run."""
    pool = [*THREADS, "--ray-batch", BATCH]
    return [f"--ray={cluster.address}", corpus.glob, str(target), "--model", "static", *pool]


def check_vectors(found: dict[str, Any], corpus: Corpus) -> None:
    """Compare a run's vectors with those of `nestvec embed`."""
    assert max(float(np.abs(found[name] - corpus.vectors[name]).max()) for name in IDS) <= 1e-5


def test_a_run_is_shared_by_all_nodes(
    cluster: LocalCluster, corpus: Corpus, tmp_path: Path
) -> None:
    """Each text comes out once, as from `nestvec embed`; small files are shared out; the same again does nothing."""
    target = tmp_path / "out"
    with cpu_watch() as watch:
        done = embed(*arguments(cluster, corpus, target), "--keep-columns", "length")
    check_vectors(check_rows(target, IDS), corpus)
    table = pq.read_table(target)
    assert table.schema.metadata == corpus.metadata
    assert table.column_names == ["id", "length", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 256)
    shares = re.search(r"on (\d) nodes \(([^)]*) batches\)", done.stdout)
    assert shares is not None, done.stdout
    assert int(shares[1]) == NODES
    assert all(int(share.rstrip("%")) >= 20 for share in shares[2].split(", "))
    actors_s, all_s = sum(watch.actors_s.values()), sum(watch.others_s.values())
    print(
        f"\nCPU seconds of {TEXTS} texts: nestvec embed {corpus.cpu_s:.1f}, the {NODES} actors {actors_s:.1f}, "
        f"everything else of Ray and the driver {all_s:.1f}; shares {shares[2]}"
    )
    again = embed(*arguments(cluster, corpus, target), "--keep-columns", "length")
    assert "complete already" in again.stdout
    other = embed(*arguments(cluster, corpus, target), "--dimensions", "64", check=False)
    assert other.returncode == 1
    assert "holds a run with other options" in other.stderr


def test_a_node_that_is_lost_costs_nothing_but_time(
    cluster: LocalCluster, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is killed once it has done two batches; no text is lost or comes twice."""
    monkeypatch.setattr(ray_run_module, "LOOK_S", 0.05)
    killed: list[str] = []

    def kill_one(totals: Totals) -> None:
        for node, batches in totals.batches.items():
            if not killed and batches >= 2 and cluster.kill(node):
                killed.append(node)

    target = tmp_path / "out"
    run = RayRun(
        sources=find_parquet([corpus.glob]),
        target=arrow_path(str(target)),
        target_name="out",
        id_column="id",
        columns=["id", "text"],
        embed={"model": "static", "id_column": "id", "keep_columns": ["id"]},
        cpus=1,
        batch_rows=int(BATCH),
    )
    summary = run_on_ray(run, cluster.address, lambda rows, resumed: None, kill_one)
    assert killed
    assert summary.rows == TEXTS
    check_vectors(check_rows(target, IDS), corpus)


def test_a_driver_that_is_killed_is_gone_on_with(
    cluster: LocalCluster, corpus: Corpus, tmp_path: Path
) -> None:
    """After kill -9 the same command does what is not done; no text is lost or comes twice."""
    target = tmp_path / "out"
    line = arguments(cluster, corpus, target)
    process = start_embed(*line)
    wait_for_commits(process, tmp_path / "out.nestvec-checkpoint", least=3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = embed(*line)
    earlier = re.search(rf"{TEXTS} vectors \((\d+) texts by an earlier run\)", done.stdout)
    assert earlier is not None, done.stdout
    assert int(earlier[1]) >= 3 * int(BATCH)
    check_vectors(check_rows(target, IDS), corpus)
    assert not (tmp_path / "out.nestvec-checkpoint").exists()


def test_ctrl_c_says_how_to_go_on(cluster: LocalCluster, corpus: Corpus, tmp_path: Path) -> None:
    """Ctrl-C ends a run without a traceback, tells what is kept, and the same command goes on from there."""
    target = tmp_path / "out"
    line = arguments(cluster, corpus, target)
    process = start_embed(*line)
    wait_for_commits(process, tmp_path / "out.nestvec-checkpoint", least=2)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    kept = re.search(rf"interrupted: (\d+) of {TEXTS} texts are kept", stderr)
    assert kept is not None, stderr
    assert "the same command goes on from here" in stderr
    assert "Traceback" not in stderr
    done = embed(*line)
    assert f"({kept[1]} texts by an earlier run)" in done.stdout
    check_rows(target, IDS)


def test_an_object_store(
    cluster: LocalCluster, corpus: Corpus, store: Service, tmp_path: Path
) -> None:
    """Sources and target are in S3, and a text that is wrong is named by its row."""
    from pyarrow.fs import FileSystem

    filesystem, _ = FileSystem.from_uri(f"s3://{BUCKET}")
    for path in sorted(corpus.folder.iterdir())[:2]:
        with (
            path.open("rb") as source,
            filesystem.open_output_stream(f"{BUCKET}/in/{path.name}") as to,
        ):
            shutil.copyfileobj(source, to)
    line = [f"--ray={cluster.address}", "--model", "static", "--worker-threads", "1"]
    done = embed(*line, f"s3://{BUCKET}/in/*.parquet", f"s3://{BUCKET}/out/run")
    assert f"{2 * TEXTS // FILES} vectors" in done.stdout
    table = pq.read_table(f"{BUCKET}/out/run", filesystem=filesystem)
    assert sorted(table.column("id").to_pylist()) == sorted(IDS[: 2 * TEXTS // FILES])
    assert table.schema.metadata == corpus.metadata
    bad = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["one", None]}), bad)
    refused = embed(*line, str(bad), str(tmp_path / "no"), check=False)
    assert refused.returncode == 1
    assert "nestvec: the row of id b: column 'text' holds no text" in refused.stderr
    doubled = tmp_path / "doubled.parquet"
    pq.write_table(pa.table({"id": ["a", "a"], "text": ["one", "two"]}), doubled)
    refused = embed(*line, str(doubled), str(tmp_path / "no2"), check=False)
    assert "the id a comes 2 times" in refused.stderr
