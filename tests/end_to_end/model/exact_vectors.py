"""Vectors of STS-B by the default model in fp32, computed once for all tests and workers of a run."""

import fcntl
import os
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import FloatArray
from nestvec.system.durable_files import atomic_write
from nestvec.tools.quality.tasks import PairTask, read_pairs
from nestvec.tools.quality.vectors import ModelVectors

from tests.support.data_sets import data_set

STSB: Final = data_set("stsb/test.tsv")


class ExactPairs:
    """The pairs of STS-B.

    Attributes:
        task: The pairs, and how alike people found them.
        texts: Each text once.
        raw: Their vectors as the model gives them, of any length, `[T, D]`.
    """

    def __init__(self, task: PairTask, raw_of_run: Path) -> None:
        self.task = task
        self.texts = list(dict.fromkeys((*task.first, *task.second)))
        self._rows = {text: number for number, text in enumerate(self.texts)}
        self.raw = self._computed_once(raw_of_run)

    def sides(self, vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the rows of the first and of the second texts, of vectors `[T, D]` in the order of `texts`."""
        first, second = (
            vectors[[self._rows[text] for text in side]]
            for side in (self.task.first, self.task.second)
        )
        return first, second

    def _computed_once(self, path: Path) -> FloatArray:
        # Another worker may be computing them.
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                settings = load_settings({"offline": True}).for_offline_tools()
                service = build_local_service(settings, NullObserver())
                with ModelVectors(service, lambda _: None) as model:
                    vectors = model.raw(self.texts)[0]
                with atomic_write(path) as file:
                    np.save(file, vectors)
        loaded: FloatArray = np.load(path)
        return loaded


def exact_pairs(factory: pytest.TempPathFactory) -> ExactPairs:
    """Return the pairs; skips where STS-B is absent."""
    if not STSB.is_file():
        pytest.skip(f"{STSB} is absent")
    folder = factory.getbasetemp()
    # Workers have folders of their own in that of the run.
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    return ExactPairs(read_pairs(STSB), folder / "sts-b-fp32.npy")
