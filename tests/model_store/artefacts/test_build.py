"""Building an artefact: one session for steps of one graph, on all cores, held to a long text too, and told of."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.types import Batch, Layout, RawOutput
from nestvec.errors import FormatError, QualityError
from nestvec.export.architectures import ExportOptions, export_graph
from nestvec.export.graph.builder import GraphBuilder
from nestvec.model_store.artefacts import build
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.artefacts.probes import MAX_TOKENS, PROBE_TEXTS
from nestvec.model_store.package import load_package
from nestvec.model_store.preparation import Advance, Step
from typing_extensions import override

from tests.model_store.test_package import options
from tests.support.tiny import CONFIG, write_json, write_tiny_bert

INT8 = BuildOptions(Precision.INT8)


@dataclass
class Sessions:
    """Opens graphs, and knows which are open.

    Attributes:
        opened: The graphs, in order.
        open: How many are.
        most_open: How many were at once.
        change: Changes what a run of a graph gives.
    """

    opened: list[str] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    change: Callable[[Path, Batch, RawOutput], RawOutput] = lambda _path, _batch, raw: raw

    def __call__(self, path: Path, layout: Layout, backend_options: BackendOptions) -> Backend:
        """Open a graph."""
        sessions = self

        class Counted(OnnxBackend):
            """A session that is counted."""

            @override
            def run(self, batch: Batch) -> RawOutput:
                """Run a batch."""
                return sessions.change(path, batch, super().run(batch))

            @override
            def close(self) -> None:
                """Close it, once."""
                super().close()
                sessions.open -= 1

        backend = Counted(path, layout, backend_options)
        self.opened.append(path.name)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return backend


@dataclass
class Listener:
    """Keeps what it is told.

    Attributes:
        steps: Each step with its total, and what was done of it.
    """

    steps: list[tuple[Step, int, int]] = field(default_factory=list)

    @contextmanager
    def step(self, step: Step, total: int = 0, unit: str = "") -> Iterator[Advance]:
        """Count what is done."""
        assert unit or not total
        done = Counter[str]()
        yield lambda count: done.update(done=count)
        self.steps.append((step, total, done["done"]))


def far_folder(tmp_path: Path) -> Path:
    """Write a tiny BERT whose window takes the far text."""
    folder = write_tiny_bert(tmp_path / "far", config={"max_position_embeddings": MAX_TOKENS})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS})
    return folder


def test_a_first_start_opens_its_graph_once(tmp_path: Path, tiny_folder: Path) -> None:
    """For probes and for calibration; a second start opens none, and neither leaves one open."""
    sessions = Sessions()
    load_package(str(tiny_folder), options(tmp_path), sessions)
    assert (sessions.opened, sessions.open) == (["model.onnx"], 0)
    load_package(str(tiny_folder), options(tmp_path), sessions)
    assert sessions.opened == ["model.onnx"]


def test_an_int8_start_opens_each_graph_once(tmp_path: Path, tiny_folder: Path) -> None:
    """The reference, the one to calibrate by over the same weights, and the one that serves; never two at once."""
    sessions = Sessions()
    load_package(str(tiny_folder), options(tmp_path), sessions, build=INT8)
    assert sessions.opened == ["model.onnx", "calibration.onnx", "model.onnx"]
    assert (sessions.open, sessions.most_open) == (0, 1)


def test_no_session_outlives_a_build_that_fails(tmp_path: Path, tiny_folder: Path) -> None:
    """Here values are not finite."""
    sessions = Sessions(
        change=lambda path, _, raw: (
            replace(raw, hidden=raw.hidden * np.float32(np.nan))
            if path.name == "calibration.onnx" and raw.hidden is not None
            else raw
        )
    )
    with pytest.raises(FormatError, match="not finite"):
        load_package(str(tiny_folder), options(tmp_path), sessions, build=INT8)
    assert sessions.open == 0


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_calibration_gives_the_same_on_any_number_of_threads(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """Ranges inside the graph and those of 8-bit vectors: batches do not depend on who runs them."""
    artefacts = []
    for threads in (1, 4):
        monkeypatch.setattr(build, "usable_cpus", lambda threads=threads: threads)
        package = load_package(
            str(tiny_folder),
            options(tmp_path / str(threads)),
            OnnxBackend,
            build=BuildOptions(precision),
        )
        artefacts.append((package.quantizer.id, package.graph.with_name("weights.bin")))
    (one, weights), (four, same_weights) = artefacts
    assert one == four
    assert weights.read_bytes() == same_weights.read_bytes()


def test_a_listener_is_told_of_every_step(tmp_path: Path, tiny_folder: Path) -> None:
    """How many units there are, and in the end that all are done; a second start has none of these steps."""
    listener = Listener()
    load_package(str(tiny_folder), options(tmp_path), OnnxBackend, build=INT8, listener=listener)
    assert [step for step, _, _ in listener.steps] == [
        Step.EXPORT,
        Step.COMPUTE_PROBES,
        Step.CALIBRATE_ACTIVATIONS,
        Step.EXPORT,
        Step.COMPUTE_PROBES,
        Step.CALIBRATE_VECTORS,
    ]
    assert all(done == total > 0 for _, total, done in listener.steps)
    again = Listener()
    load_package(str(tiny_folder), options(tmp_path), OnnxBackend, build=INT8, listener=again)
    assert again.steps == []


def is_far(batch: Batch) -> bool:
    """Whether a batch is the far text: as long as a probe may be, and no one word 600 times."""
    return batch.lengths.max() == MAX_TOKENS and len(np.unique(batch.arrays["ids"])) > 8


def test_a_coarser_precision_is_held_to_a_far_text(tmp_path: Path) -> None:
    """An 8-bit graph that is wrong beyond the probes' lengths is never cached."""
    folder = far_folder(tmp_path)
    far: list[str] = []

    def note(path: Path, batch: Batch, raw: RawOutput) -> RawOutput:
        if is_far(batch):
            far.append(path.name)
        return raw

    def spoil(path: Path, batch: Batch, raw: RawOutput) -> RawOutput:
        if path.parent.name != "artefact" or not is_far(batch) or raw.hidden is None:
            return raw
        return replace(raw, hidden=raw.hidden[:, ::-1])

    package = load_package(
        str(folder), options(tmp_path / "right"), Sessions(change=note), build=INT8
    )
    assert len(package.probes) == len(PROBE_TEXTS)  # it is compared, not stored
    assert far == ["model.onnx", "model.onnx"]
    with pytest.raises(QualityError, match="too coarse"):
        load_package(str(folder), options(tmp_path / "wrong"), Sessions(change=spoil), build=INT8)


def test_fp32_runs_no_far_text(tmp_path: Path) -> None:
    """There is nothing to hold it against, and of a large model it takes as long as all other probes four times."""
    batches: list[bool] = []

    def note(_: Path, batch: Batch, raw: RawOutput) -> RawOutput:
        batches.append(is_far(batch))
        return raw

    load_package(str(far_folder(tmp_path)), options(tmp_path), Sessions(change=note))
    assert batches
    assert not any(batches)


def test_weights_that_no_graph_uses_are_not_kept(tmp_path: Path) -> None:
    """Large weights are written as they come; what is not used in the end makes no difference to the files."""
    written = []
    for name, has_more in (("plain", False), ("more", True)):
        folder = tmp_path / name
        folder.mkdir()
        graph = GraphBuilder("sum", weights_path=folder / "weights.bin")
        value = graph.input("rows", "float32", ("B", 512))
        for number in range(3):
            if has_more:
                graph.weight(f"unused_{number}", np.full((64, 512), 7, np.float32))
            row = np.full((1, 512), number, np.float32)
            value = graph.op("Add", value, graph.weight(f"row_{number}", row))
        graph.output(value, "rows_out", ("B", 512))
        graph.save(folder / "model.onnx")
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"model.onnx", "weights.bin"}


def test_an_export_holds_no_more_than_a_few_weights_in_memory(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in the file before the graph is saved: a large model's would fill the memory."""
    sizes = []
    save = GraphBuilder.save

    def spy(graph: GraphBuilder, path: Path) -> None:
        sizes.append((path.parent / "weights.bin").stat().st_size)
        save(graph, path)
        sizes.append((path.parent / "weights.bin").stat().st_size)

    monkeypatch.setattr(GraphBuilder, "save", spy)
    export_graph(tiny_folder, CONFIG, tmp_path / "model.onnx", ExportOptions())
    before, after = sizes
    assert after == before > 8192
