"""A cluster of Ray on this machine: a head, and nodes that tests can kill; and what runs on it."""

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

NESTVEC: Final = str(Path(sys.executable).parent / "nestvec")
NODES: Final = 3
OBJECT_STORE_BYTES: Final = 200_000_000
# Ray's, of an actor of ours; its workers are named after what they run.
ACTOR: Final = "CountedEmbed"
# On a machine that does nothing else a run takes half a minute.
RUN_S: Final = 580


@dataclass(slots=True)
class LocalCluster:
    """A head with one CPU, which reads and writes, and nodes with one each.

    They listen on the machine's own address: Ray's test cluster does not find a head on 127.0.0.1.
    """

    address: str
    _cluster: Any
    _nodes: list[Any] = field(default_factory=list)

    def fill(self) -> None:
        """Add nodes until there are three."""
        while len(self._nodes) < NODES:
            self._nodes.append(
                self._cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
            )
        self._cluster.wait_for_nodes()

    def kill(self, node_id: str) -> bool:
        """End a node as a power cut does; False for the head, which is none of the three."""
        for node in self._nodes:
            if node.node_id == node_id:
                self._nodes.remove(node)
                self._cluster.remove_node(node, allow_graceful=False)
                return True
        return False


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """A cluster of this test's own."""
    # Ray lets its workers wait behind whatever else the machine does; read when a node starts.
    os.environ.setdefault("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        },
    )
    try:
        local = LocalCluster(cluster.address, cluster)
        local.fill()
        yield local
    finally:
        cluster.shutdown()


@dataclass(slots=True)
class CpuWatch:
    """CPU seconds of processes as they come and go: of actors that embed, and of everything that Ray runs.

    Attributes:
        actors_s: User and system time by process id, of actors.
        others_s: The same, of everything else.
    """

    actors_s: dict[int, float] = field(default_factory=dict)
    others_s: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Note what all children of this process have used so far."""
        for process in psutil.Process().children(recursive=True):
            try:
                times, line = process.cpu_times(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            kind = self.actors_s if ACTOR in line else self.others_s
            kind[process.pid] = times.user + times.system


@contextmanager
def cpu_watch() -> Iterator[CpuWatch]:
    """Watch the children of this process."""
    watch, is_over = CpuWatch(), threading.Event()

    def work() -> None:
        while not is_over.wait(0.2):
            watch.look()

    thread = threading.Thread(target=work, daemon=True)
    before = CpuWatch()
    before.look()
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join()
        for pid, used_s in before.others_s.items():
            if pid in watch.others_s:
                watch.others_s[pid] -= used_s


def embed(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `nestvec embed` as a user types it."""
    done = subprocess.run(
        [NESTVEC, "embed", *arguments], capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def start_embed(*arguments: str) -> "subprocess.Popen[str]":
    """Start `nestvec embed` in a process group of its own, as a terminal does."""
    return subprocess.Popen(
        # A shell's background job ignores Ctrl-C, and so would every process that it starts.
        ["env", "--default-signal=INT", NESTVEC, "embed", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_commits(process: "subprocess.Popen[str]", checkpoint: Path, least: int) -> None:
    """Wait until a run has noted some files as whole, and goes on."""
    until_s = time.monotonic() + RUN_S
    while time.monotonic() < until_s and process.poll() is None:
        whole = [path for path in checkpoint.glob("*.parquet") if ".pending." not in path.name]
        if len(whole) >= least:
            break
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be ended"


def check_rows(folder: Path, ids: Sequence[str]) -> dict[str, Any]:
    """Check that a folder holds each id once; return its vectors by id."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder)
    counts = Counter(table.column("id").to_pylist())
    assert table.num_rows == len(ids)
    assert counts == Counter(ids)
    vectors = table.column("embedding").combine_chunks()
    matrix = vectors.values.to_numpy().reshape(len(vectors), -1)
    return dict(zip(table.column("id").to_pylist(), matrix, strict=True))
