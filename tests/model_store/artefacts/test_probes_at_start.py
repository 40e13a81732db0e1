"""The probes at a start: long and short routes, alone and together, on every session that will serve."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import pytest
from nestvec.assembly.model import probe
from nestvec.backends.latency import LatencyBackend
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import Backend, BackendInfo, BackendOptions
from nestvec.engine.types import Batch, RawOutput
from nestvec.errors import ProbeError
from nestvec.model_store.artefacts.probes import BATCH_TOKENS, PROBE_TEXTS
from nestvec.model_store.package import Package, load_package
from numpy.typing import NDArray

from tests.model_store.test_package import options
from tests.support.tiny import write_json, write_tiny_bert

LONG = 640  # what the longest probe is cut to


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Export a tiny BERT that takes inputs longer than a batch of probes."""
    base = tmp_path_factory.mktemp("long")
    folder = write_tiny_bert(base / "model", config={"max_position_embeddings": LONG})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": LONG})
    return dataclasses.replace(load_package(str(folder), options(base), OnnxBackend), is_new=False)


@dataclass
class Session:
    """A session that notes what it ran, and gives wrong states for some batches.

    Attributes:
        backend: Runs the batches.
        batches: Lengths of each batch, and whether it was alone on the server.
        spoils_from: Batches whose longest text has so many tokens come out wrong.
    """

    backend: Backend
    batches: list[tuple[list[int], bool]] = field(default_factory=list)
    spoils_from: int = 10_000

    @property
    def info(self) -> BackendInfo:
        """What the backend is."""
        return self.backend.info

    def cost(self, lengths: NDArray[np.int64]) -> float:
        """Price a batch as the backend does."""
        return self.backend.cost(lengths)

    def run(self, batch: Batch) -> RawOutput:
        """Run a batch."""
        self.batches.append((sorted(batch.lengths.tolist()), batch.is_lone))
        raw = self.backend.run(batch)
        if batch.lengths.max() >= self.spoils_from:
            assert raw.hidden is not None
            return dataclasses.replace(raw, hidden=raw.hidden[:, ::-1])
        return raw

    def close(self) -> None:
        """Free the session."""
        self.backend.close()


def session(package: Package, spoils_from: int = 10_000) -> Session:
    """Open a session of a package."""
    backend = OnnxBackend(package.graph, package.layout, BackendOptions(provider="cpu"))
    return Session(backend, spoils_from=spoils_from)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_long_probe_never_shares_a_batch(package: Package, threads: int) -> None:
    """Short ones run together, the long one alone, and all of them by themselves; nothing runs twice alike."""
    narrow = session(package)
    assert probe(package, narrow, threads) > 0
    together = [lengths for lengths, is_lone in narrow.batches if not is_lone]
    assert [LONG] in together
    assert all(sum(lengths) <= BATCH_TOKENS for lengths in together if lengths != [LONG])
    assert max(len(set(lengths)) for lengths in together) > 3  # rows of several lengths
    assert sum(len(lengths) for lengths in together) == len(PROBE_TEXTS)
    alone = [lengths for lengths, is_lone in narrow.batches if is_lone]
    assert sum(lengths == [LONG] for lengths, _ in narrow.batches) == 1
    own = [lengths for lengths in together if len(lengths) == 1]
    assert len(alone) + len(own) == len(PROBE_TEXTS)
    assert all(len(lengths) == 1 for lengths in alone)


def test_the_wide_session_runs_a_probe_of_every_way(package: Package) -> None:
    """The narrow one runs all as under load, the wide one the shortest, middling ones and the long one, each alone."""
    narrow, wide = session(package), session(package)
    probe(package, LatencyBackend(narrow, wide), 2)
    assert [LONG] in [lengths for lengths, _ in narrow.batches]
    assert sum(len(lengths) for lengths, _ in narrow.batches) == len(PROBE_TEXTS)
    assert all(is_lone and len(lengths) == 1 for lengths, is_lone in wide.batches)
    assert [LONG] in [lengths for lengths, _ in wide.batches]
    lengths = sorted(length for lengths, _ in narrow.batches for length in lengths)
    alone = sorted(length for lengths, _ in wide.batches for length in lengths)
    assert alone == [lengths[0], lengths[(len(lengths) - 1) // 2], lengths[-2], LONG]


def test_the_long_probe_of_a_new_artefact_runs_once(package: Package) -> None:
    """Its stored vector was made a minute ago as the narrow session would; without a wide one it runs all the same."""
    new = dataclasses.replace(package, is_new=True)
    narrow, wide, only = session(package), session(package), session(package)
    probe(new, LatencyBackend(narrow, wide), 2)
    assert [LONG] not in [lengths for lengths, _ in narrow.batches]
    assert sum(len(lengths) for lengths, _ in narrow.batches) == len(PROBE_TEXTS) - 1
    assert ([LONG], True) in wide.batches
    probe(new, only, 2)
    assert [LONG] in [lengths for lengths, _ in only.batches]


@pytest.mark.parametrize("spoils_from", [1, BATCH_TOKENS])
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_wrong_route_of_either_session_is_found(
    package: Package,
    spoils_from: int,
    is_wide: bool,  # noqa: FBT001 - pytest gives it by name
) -> None:
    """Of short texts or of long ones only."""
    narrow = session(package, 10_000 if is_wide else spoils_from)
    wide = session(package, spoils_from if is_wide else 10_000)
    with pytest.raises(ProbeError, match="differ from the stored ones"):
        probe(package, LatencyBackend(narrow, wide), 2)


def test_a_wrong_long_route_is_found_without_a_wide_session(package: Package) -> None:
    """Though the long probe runs once only."""
    with pytest.raises(ProbeError, match="differ from the stored ones"):
        probe(package, session(package, BATCH_TOKENS), 2)


def test_an_artefact_with_another_number_of_probes_is_refused(package: Package) -> None:
    """It was made by another release, or is damaged."""
    foreign = dataclasses.replace(package, probes=np.tile(package.probes, (2, 1))[:13])
    with pytest.raises(ProbeError, match="shape"):
        probe(foreign, session(package))


def test_the_cost_of_a_token_is_that_of_short_texts(
    package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the long probe takes: the queue's first estimate is for batches as service has them."""
    narrow = session(package)
    now_s = 0.0

    class Clock:
        """Seconds that only runs take: one for a batch of short texts, 1,000 for the long one."""

        @staticmethod
        def monotonic() -> float:
            """Return the time."""
            return now_s

    run = narrow.run

    def timed(batch: Batch) -> RawOutput:
        nonlocal now_s
        now_s += 1000.0 if batch.lengths.max() == LONG else 1.0
        return run(batch)

    monkeypatch.setattr("nestvec.model_store.artefacts.probes.time", Clock)
    monkeypatch.setattr(narrow, "run", timed)
    token_s = probe(package, narrow)
    fullest = max((lengths for lengths, is_lone in narrow.batches if not is_lone), key=len)
    assert token_s == pytest.approx(1.0 / sum(fullest))
