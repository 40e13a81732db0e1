"""CPU seconds of `nestvec embed --ray` against `nestvec embed` with the same threads, by the size of the corpus.

Starting Ray, its workers and a model in each takes as much however large the corpus is, so two sizes are measured: what
they differ by is what the work itself costs. Run it with the Python of `make test-ray`:

    .venv-ray/bin/python -m benchmarks.workers.ray_cluster --texts 5000 20000
"""

import argparse
import random
import resource
import tempfile
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tests.end_to_end.ray.local_cluster import LocalCluster, cpu_watch, embed, local_cluster

FILES: Final = 40
THREADS: Final = ("--worker-threads", "1", "--front-threads", "1")


def write_corpus(folder: Path, texts: int, words: tuple[int, int]) -> str:
    """Write small files of texts of random words, and return their pattern."""
    chance = random.Random(33)
    folder.mkdir()
    vocabulary = [
        "".join(chance.choices("abcdefghilmnoprstuw", k=chance.randint(2, 9))) for _ in range(3000)
    ]
    for number in range(FILES):
        ids = [f"t{n}" for n in range(number * texts // FILES, (number + 1) * texts // FILES)]
        rows = [" ".join(chance.choices(vocabulary, k=chance.randint(*words))) for _ in ids]
        pq.write_table(pa.table({"id": ids, "text": rows}), folder / f"part{number:03}.parquet")
    return f"{folder}/*.parquet"


def alone_cpu_s(pattern: str, target: Path, model: str) -> float:
    """Return the CPU seconds of `nestvec embed`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    embed(pattern, str(target), "--model", model, *THREADS)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cluster_cpu_s(
    cluster: LocalCluster, pattern: str, target: Path, model: str
) -> tuple[float, float]:
    """Return the CPU seconds of the actors, and of the driver and everything else of Ray."""
    with cpu_watch() as watch:
        embed(f"--ray={cluster.address}", pattern, str(target), "--model", model, *THREADS)
    return sum(watch.actors_s.values()), sum(watch.others_s.values())


def main() -> None:
    """Measure each size, alone and on a cluster of a head and three nodes of one CPU each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--words", type=int, nargs=2, default=[4, 30], help="fewest and most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, local_cluster() as cluster:
        folder = Path(name)
        for texts in arguments.texts:
            pattern = write_corpus(folder / f"in{texts}", texts, tuple(arguments.words))
            alone_s = alone_cpu_s(pattern, folder / f"alone{texts}.parquet", arguments.model)
            target = folder / f"out{texts}"
            actors_s, rest_s = cluster_cpu_s(cluster, pattern, target, arguments.model)
            print(
                f"{texts} texts: nestvec embed {alone_s:.1f} s of CPU, actors {actors_s:.1f}, rest of Ray "
                f"{rest_s:.1f}: {(actors_s + rest_s) / alone_s:.2f} times as much",
                flush=True,
            )


if __name__ == "__main__":
    main()
