"""Precisions: the quality gate, and artefacts in each of them."""

import re
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import Backend, BackendOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import FloatArray, Layout
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import FormatError, ProbeError, QualityError
from nestvec.export.layers.arithmetic import rounded_rows
from nestvec.model_store.artefacts.activation_calibration import measure_ranges
from nestvec.model_store.artefacts.precision import BOUNDS, BuildOptions, Precision, check_quality
from nestvec.model_store.artefacts.probes import PROBE_TEXTS, check_probes, compute_vectors
from nestvec.model_store.package import Package, load_package
from nestvec.model_store.sources.fetch import SourceOptions

from tests.backends.test_onnx import write_padded

REFERENCE = np.eye(6, 16, dtype=np.float32)


def turned(cosine: float, rows: int) -> FloatArray:
    """Return the reference with the first rows rotated away from it to this cosine."""
    vectors = REFERENCE.copy()
    vectors[:rows, :] *= cosine
    vectors[range(rows), range(8, 8 + rows)] = np.sqrt(1 - cosine**2)
    return vectors


def test_the_gate_lets_equal_vectors_pass() -> None:
    """Equal vectors pass in every precision."""
    for precision in Precision:
        check_quality(REFERENCE, REFERENCE, precision)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_gate_refuses_below_its_bounds(precision: Precision) -> None:
    """The average and the worst cosine are checked; the message says what to do."""
    bounds = BOUNDS[precision]
    check_quality(turned((1 + bounds.mean) / 2, 6), REFERENCE, precision)
    with pytest.raises(QualityError, match="on average"):
        check_quality(turned(bounds.mean - 0.001, 6), REFERENCE, precision)
    with pytest.raises(QualityError, match="at worst"):
        check_quality(turned(bounds.min - 0.001, 1), REFERENCE, precision)


def test_the_gate_refuses_nan_and_other_shapes() -> None:
    """NaN, which compares false with everything, does not slip through."""
    broken = REFERENCE.copy()
    broken[2, 2] = np.nan
    with pytest.raises(QualityError):
        check_quality(broken, REFERENCE, Precision.INT8)
    with pytest.raises(ProbeError, match="shape"):
        check_quality(REFERENCE[:2], REFERENCE, Precision.INT8)


def options(cache: Path) -> SourceOptions:
    """Return options with a cache of its own."""
    return SourceOptions(cache_dir=cache, card_dirs=(), is_offline=True)


def vectors(package: Package, backend: Backend) -> FloatArray:
    """Compute vectors of the probe texts."""
    tokenizer = Tokenizer(package.folder.tokenizer_path, max_tokens=24, vocabulary_size=128)
    return compute_vectors(backend, tokenizer, Pooler("mean"), PROBE_TEXTS)


@pytest.mark.parametrize(
    "build",
    [
        BuildOptions(Precision.INT8),
        BuildOptions(Precision.INT8_ACCURATE),
        BuildOptions(halves_weights=True),
        BuildOptions(Precision.INT8, halves_weights=True),
        BuildOptions(Precision.INT8, rounds_table=True),
    ],
    ids=["int8", "int8-accurate", "fp16 weights", "int8 and fp16 weights", "int8 and int8 table"],
)
def test_a_precision_has_an_artefact_and_a_space_of_its_own(
    tmp_path: Path, tiny_folder: Path, tiny_package: Package, build: BuildOptions
) -> None:
    """Its probes are those of fp32; it is found again; nothing of its making is left behind."""
    package = load_package(str(tiny_folder), options(tmp_path), OnnxBackend, build=build)
    assert package.spec.space != tiny_package.spec.space
    assert package.spec.precision == build.precision
    np.testing.assert_allclose(package.probes, tiny_package.probes, atol=1e-6)
    probe_vectors = vectors(package, OnnxBackend(package.graph, package.layout, BackendOptions()))
    check_probes(probe_vectors, package.probes, "cpu", build)
    assert np.abs(probe_vectors - package.probes).max() > 1e-6  # it is not fp32 under another name
    assert not load_package(str(tiny_folder), options(tmp_path), OnnxBackend, build=build).is_new
    kinds = {re.sub(r"[0-9a-f]{16,}", "", path.name) for path in package.artefact.iterdir()}
    built = {"model.onnx", "weights.bin", "manifest.json", "probes.npy", "quantisation.npz"}
    assert kinds == {*built, "made-of.json"}


def test_a_precision_that_is_too_coarse_is_never_cached(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibration that has nothing to do with the texts fails at the gate."""
    measure = measure_ranges
    monkeypatch.setattr(
        "nestvec.model_store.artefacts.build.measure_ranges",
        lambda *arguments, **options: {
            name: measured.divided_by(np.full(1, 1000, np.float32))
            for name, measured in measure(*arguments, **options).items()
        },
    )
    build = BuildOptions(Precision.INT8)
    with pytest.raises(QualityError, match="too coarse"):
        load_package(str(tiny_folder), options(tmp_path), OnnxBackend, build=build)
    assert list((tmp_path / "artefacts").iterdir()) == []


def test_a_rounded_table_is_smaller_and_near(
    tmp_path: Path, tiny_folder: Path, tiny_package: Package
) -> None:
    """A row of 8-bit integers has a scale of its own: each value is off by half a step of its row at most."""
    table = np.random.default_rng(3).standard_normal((300, 64)).astype(np.float32)
    table *= np.logspace(-3, 3, 300, dtype=np.float32)[:, None]
    table[7] = 0
    steps, rounded = rounded_rows(table)
    assert steps.shape == (300, 1)
    assert rounded.dtype == np.int8
    assert (np.abs(steps * rounded - table) <= 0.501 * steps).all()
    assert not (steps * rounded)[7].any()
    build = BuildOptions(rounds_table=True)
    package = load_package(str(tiny_folder), options(tmp_path), OnnxBackend, build=build)
    whole, smaller = (
        each.graph.with_name("weights.bin").stat().st_size for each in (tiny_package, package)
    )
    assert whole - smaller >= 2 * 128 * 32


@pytest.mark.parametrize(
    "build",
    [
        BuildOptions(Precision.INT8),
        BuildOptions(halves_weights=True),
        BuildOptions(rounds_table=True),
    ],
)
def test_foreign_graphs_stay_as_they_are(
    tmp_path: Path, tiny_folder: Path, build: BuildOptions
) -> None:
    """A graph that we did not export cannot be quantized."""
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
        load_package(str(folder), options(tmp_path / "cache"), OnnxBackend, build=build)


def test_other_calibration_texts_make_another_space(tmp_path: Path, tiny_folder: Path) -> None:
    """Their vectors differ, so stores must be able to tell them apart."""
    spaces = []
    for number in range(2):
        file = tmp_path / f"{number}.txt"
        file.write_text("".join(f"alpha beta {number} {n}\n" for n in range(40)))
        build = BuildOptions(Precision.INT8_ACCURATE, calibration=file)
        package = load_package(str(tiny_folder), options(tmp_path / "c"), OnnxBackend, build=build)
        spaces.append(package.spec.space)
    assert spaces[0] != spaces[1]


def test_layout_of_bf16_is_packed(tmp_path: Path, tiny_folder: Path) -> None:
    """OpenVINO gets a graph of standard ops; the backend is told to compute in bfloat16."""
    opened: list[BackendOptions] = []

    def open_any(path: Path, layout: Layout, backend_options: BackendOptions) -> Backend:
        opened.append(backend_options)
        return OnnxBackend(path, layout, backend_options)

    build = BuildOptions(Precision.BF16)
    package = load_package(str(tiny_folder), options(tmp_path), open_any, build=build)
    assert package.layout is Layout.PACKED
    assert [backend_options.computes_bf16 for backend_options in opened] == [False, True]
