"""Precisions: the gate, and artefacts in each of them."""

import re
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Layout
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import FormatError, ProbeError, QualityError
from nestvec.model_store.artefacts.activation_calibration import measure_ranges
from nestvec.model_store.artefacts.precision import BOUNDS, BuildOptions, Precision, check_quality
from nestvec.model_store.artefacts.probes import PROBE_TEXTS, check_probes, compute_vectors
from nestvec.model_store.package import Package, prepare
from nestvec.model_store.sources.fetch import SourceOptions

from tests.backends.test_onnx import write_padded

REFERENCE = np.eye(6, 16, dtype=np.float32)


def turned(cosine: float, rows: int) -> FloatArray:
    """The reference with some rows turned away from it by so much."""
    found = REFERENCE.copy()
    found[:rows, :] *= cosine
    found[range(rows), range(8, 8 + rows)] = np.sqrt(1 - cosine**2)
    return found


def test_the_gate_lets_equal_vectors_pass() -> None:
    """In every precision."""
    for precision in Precision:
        check_quality(REFERENCE, REFERENCE, precision)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_gate_refuses_below_its_bounds(precision: Precision) -> None:
    """On average and at worst; the message says what to do."""
    bounds = BOUNDS[precision]
    check_quality(turned((1 + bounds.mean) / 2, 6), REFERENCE, precision)
    with pytest.raises(QualityError, match="on average"):
        check_quality(turned(bounds.mean - 0.001, 6), REFERENCE, precision)
    with pytest.raises(QualityError, match="at worst"):
        check_quality(turned(bounds.least - 0.001, 1), REFERENCE, precision)


def test_the_gate_refuses_nan_and_other_shapes() -> None:
    """NaN compares false with everything."""
    broken = REFERENCE.copy()
    broken[2, 2] = np.nan
    with pytest.raises(QualityError):
        check_quality(broken, REFERENCE, Precision.INT8)
    with pytest.raises(ProbeError, match="shape"):
        check_quality(REFERENCE[:2], REFERENCE, Precision.INT8)


def options(cache: Path) -> SourceOptions:
    """A cache of its own."""
    return SourceOptions(cache_dir=cache, card_dirs=(), is_offline=True)


def vectors(package: Package, backend: Backend) -> FloatArray:
    """Of the probes."""
    tokenizer = Tokenizer(package.tokenizer, max_tokens=24, vocabulary_size=128)
    return compute_vectors(backend, tokenizer, Outputs("mean"), PROBE_TEXTS)


@pytest.mark.parametrize(
    "build",
    [
        BuildOptions(Precision.INT8),
        BuildOptions(Precision.INT8_ACCURATE),
        BuildOptions(halves_weights=True),
        BuildOptions(Precision.INT8, halves_weights=True),
    ],
    ids=["int8", "int8-accurate", "fp16 weights", "int8 and fp16 weights"],
)
def test_a_precision_has_an_artefact_and_a_space_of_its_own(
    tmp_path: Path, tiny_folder: Path, tiny_package: Package, build: BuildOptions
) -> None:
    """Its probes are those of fp32; it is found again; nothing of its making is left behind."""
    package = prepare(str(tiny_folder), options(tmp_path), OnnxBackend, wanted=build)
    assert package.spec.space != tiny_package.spec.space
    assert package.spec.precision == build.precision
    np.testing.assert_allclose(package.probes, tiny_package.probes, atol=1e-6)
    found = vectors(package, OnnxBackend(package.graph, package.layout, BackendOptions()))
    check_probes(found, package.probes, "cpu", build)
    assert np.abs(found - package.probes).max() > 1e-6  # it is not fp32 under another name
    assert not prepare(str(tiny_folder), options(tmp_path), OnnxBackend, wanted=build).is_new
    kinds = {re.sub(r"[0-9a-f]{16,}", "", path.name) for path in package.artefact.iterdir()}
    assert kinds == {"model.onnx", "weights.bin", "manifest.json", "probes.npy", "quantisation.npz"}


def test_a_precision_that_is_too_coarse_is_never_cached(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration that has nothing to do with the texts shows at the gate."""
    honest = measure_ranges
    monkeypatch.setattr(
        "nestvec.model_store.artefacts.build.measure_ranges",
        lambda *given: {
            name: found.over(np.full(1, 1000, np.float32)) for name, found in honest(*given).items()
        },
    )
    build = BuildOptions(Precision.INT8)
    with pytest.raises(QualityError, match="too coarse"):
        prepare(str(tiny_folder), options(tmp_path), OnnxBackend, wanted=build)
    assert list((tmp_path / "artefacts").iterdir()) == []


@pytest.mark.parametrize("build", [BuildOptions(Precision.INT8), BuildOptions(halves_weights=True)])
def test_foreign_graphs_stay_as_they_are(
    tmp_path: Path, tiny_folder: Path, build: BuildOptions
) -> None:
    """We cannot quantise what we do not export."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for file in tiny_folder.iterdir():
        if file.is_file() and file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    (folder / "2_Normalize").mkdir()
    write_padded(folder / "model.onnx")
    with pytest.raises(FormatError, match="exporter"):
        prepare(str(folder), options(tmp_path / "cache"), OnnxBackend, wanted=build)


def test_other_calibration_texts_make_another_space(tmp_path: Path, tiny_folder: Path) -> None:
    """Their vectors differ, so stores must be able to tell."""
    spaces = []
    for number in range(2):
        file = tmp_path / f"{number}.txt"
        file.write_text("".join(f"alpha beta {number} {n}\n" for n in range(40)))
        build = BuildOptions(Precision.INT8_ACCURATE, calibration=file)
        package = prepare(str(tiny_folder), options(tmp_path / "c"), OnnxBackend, wanted=build)
        spaces.append(package.spec.space)
    assert spaces[0] != spaces[1]


def test_layout_of_bf16_is_packed(tmp_path: Path, tiny_folder: Path) -> None:
    """OpenVINO gets a graph of standard ops; the backend is asked for bfloat16."""
    asked: list[BackendOptions] = []

    def open_any(path: Path, layout: Layout, chosen: BackendOptions) -> Backend:
        asked.append(chosen)
        return OnnxBackend(path, layout, chosen)

    build = BuildOptions(Precision.BF16)
    package = prepare(str(tiny_folder), options(tmp_path), open_any, wanted=build)
    assert package.layout is Layout.PACKED
    assert [chosen.computes_bf16 for chosen in asked] == [False, True, True]
