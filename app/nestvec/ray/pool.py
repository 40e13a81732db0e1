"""How many actors a cluster has room for, and what each of them reserves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nestvec.errors import FormatError

# Beyond that a second copy of the model does more than further threads.
MAX_CPUS: Final = 4
# Reading and writing take a CPU a task, and what passes over rows of an earlier run has one to itself. So many of a
# cluster's are left to them, or more: actors that took all would wait for ever for the first row.
SPARE_CPUS: Final = 1
SPARE_CPUS_TO_RESUME: Final = 2
SPARE_SHARE: Final = 0.05
# A run that is killed loses what was not in a whole file: so many files are made by each actor, or more.
FILES_PER_ACTOR: Final = 16
MAX_FILE_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class ActorPool:
    """Actors of a run.

    Attributes:
        cpus: CPUs that each reserves, and threads that its engine runs.
        gpus: GPUs that each reserves.
        actors: How many there may be.
        fitting: How many fit into the nodes that are there.
    """

    cpus: int
    gpus: int
    actors: int
    fitting: int

    @property
    def first(self) -> int:
        """How many are started at once: all that fit, so that no node looks on while the first one works."""
        return max(1, min(self.actors, self.fitting))


def plan_pool(
    nodes: Sequence[Mapping[str, float]],
    *,
    cpus: int = 0,
    actors: int = 0,
    uses_gpus: bool | None = None,
    resumes: bool = False,
) -> ActorPool:
    """Choose a pool for a cluster.

    Args:
        nodes: The resources of each node, by Ray's names: CPU, GPU.
        cpus: CPUs of an actor; 0 for what the smallest node has, four at most.
        actors: How many actors there may be; 0 for as many as fit into the nodes that are there.
        uses_gpus: Whether each takes a GPU; None: where the cluster has GPUs.
        resumes: Whether rows of an earlier run are passed over.

    Raises:
        FormatError: No node has what an actor needs.
    """
    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    gpus = int(has_gpus if uses_gpus is None else uses_gpus)
    usable = [node for node in nodes if node.get("GPU", 0) >= gpus and node.get("CPU", 0) >= 1]
    if not usable:
        needed = "a GPU and a CPU" if gpus else "a CPU"
        raise FormatError(f"none of the cluster's {len(nodes)} nodes has {needed} for an actor")
    asked = cpus
    spare = SPARE_CPUS_TO_RESUME if resumes else SPARE_CPUS
    if not cpus:
        shares = (
            node["CPU"] / max(1, node.get("GPU", 0)) if gpus else node["CPU"] for node in usable
        )
        cpus = max(1, min(MAX_CPUS, int(min(shares))))
    fitting = _fitting(nodes, cpus, gpus, spare)
    while not fitting and cpus > 1 and not asked:
        # One node, all of whose CPUs the only actor would have.
        cpus -= 1
        fitting = _fitting(nodes, cpus, gpus, spare)
    if not fitting:
        raise FormatError(
            f"an actor of {cpus} CPUs (--worker-threads) fits on no node of the cluster, beside {spare} CPUs "
            "for reading and writing"
        )
    return ActorPool(cpus, gpus, actors or fitting, fitting)


def _fitting(nodes: Sequence[Mapping[str, float]], cpus: int, gpus: int, spare: int) -> int:
    """Return how many actors fit into nodes, some CPUs of the cluster left over."""
    count = 0
    left = total = sum(node.get("CPU", 0) for node in nodes)
    for node in nodes:
        room = int(node.get("CPU", 0) // cpus)
        if gpus:
            room = min(room, int(node.get("GPU", 0)))
        count += room
        left -= room * cpus
    while count and left < max(spare, SPARE_SHARE * total):
        count, left = count - 1, left + cpus
    return count


def rows_of_files(rows: int, batch_rows: int, pool: ActorPool) -> int:
    """Return how many rows a file should hold: few files of a large run, and little lost of any that is killed."""
    return max(batch_rows, min(MAX_FILE_ROWS, rows // (FILES_PER_ACTOR * pool.actors)))
