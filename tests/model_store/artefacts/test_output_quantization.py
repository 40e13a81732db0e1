"""Calibration of 8-bit output vectors: on bundled texts at the first start, then on the user's own."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.errors import ArtefactError, FormatError
from nestvec.model_store.artefacts.output_quantization import (
    QUANTIZER_FILE,
    calibration_vectors,
    output_calibration_texts,
    read_quantizer,
    write_quantizer,
)
from nestvec.model_store.output_calibration import calibrate_outputs
from nestvec.model_store.package import Package, load_package

from tests.model_store.test_package import options


@pytest.fixture
def package(tmp_path: Path, tiny_folder: Path) -> Package:
    """Load a tiny model into a cache of its own."""
    return load_package(str(tiny_folder), options(tmp_path), OnnxBackend)


def stored_quantizer(package: Package) -> Quantizer:
    """Read the quantizer that lies beside the artefact."""
    quantizer = read_quantizer(package.artefact)
    assert quantizer is not None
    return quantizer


def test_a_first_start_calibrates_on_bundled_texts(
    package: Package, tmp_path: Path, tiny_folder: Path
) -> None:
    """About a thousand unit vectors are kept, and the next start reads them."""
    assert package.quantizer.source == "bundled"
    vectors = package.quantizer.vectors
    assert vectors is not None
    assert vectors.shape == (len(output_calibration_texts(32)), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    again = load_package(str(tiny_folder), options(tmp_path), OnnxBackend)
    assert again.quantizer.id == package.quantizer.id == stored_quantizer(package).id


def test_the_bundled_texts_are_many_and_short() -> None:
    """There are about a thousand; fewer for wide models, whose first start should not take minutes."""
    texts = output_calibration_texts(384)
    assert 1000 <= len(texts) <= 1600
    assert len(set(texts)) == len(texts)
    assert not any(len(set(text.split())) == 1 and len(text.split()) > 2 for text in texts)
    assert 100 <= len(output_calibration_texts(4096)) <= 200


def test_own_texts_replace_them(package: Package, tmp_path: Path) -> None:
    """A user's texts replace the bundled ones, which can be restored; the share clipped before is reported."""
    file = tmp_path / "own.txt"
    file.write_text("".join(f"alpha {n} red\n" for n in range(40)))
    calibration = calibrate_outputs(package, file, OnnxBackend)
    assert (calibration.quantizer.source, calibration.texts) == ("texts", 40)
    assert 0 <= calibration.clipped_before < 0.5
    assert stored_quantizer(package).id == calibration.quantizer.id != package.quantizer.id
    back = calibrate_outputs(
        dataclasses.replace(package, quantizer=calibration.quantizer), None, OnnxBackend
    )
    assert stored_quantizer(package).id == back.quantizer.id == package.quantizer.id


@pytest.mark.parametrize("content", ["one line\n", ""])
def test_too_few_texts_are_refused(package: Package, tmp_path: Path, content: str) -> None:
    """The earlier ranges stay."""
    file = tmp_path / "few.txt"
    file.write_text(content)
    with pytest.raises(FormatError, match="at least 16"):
        calibrate_outputs(package, file, OnnxBackend)
    assert stored_quantizer(package).id == package.quantizer.id


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 but no more"])
def test_a_broken_file_is_made_anew(
    package: Package, tmp_path: Path, tiny_folder: Path, content: bytes
) -> None:
    """A file that is not whole is never trusted: the next start calibrates again."""
    (package.artefact / QUANTIZER_FILE).write_bytes(content)
    assert read_quantizer(package.artefact) is None
    again = load_package(str(tiny_folder), options(tmp_path), OnnxBackend)
    assert stored_quantizer(again).id == package.quantizer.id


def test_vectors_that_are_none_are_not_trusted(package: Package) -> None:
    """Vectors of another shape, or not finite, count as none."""
    for wrong in (np.zeros(3, np.float32), np.full((2, 32), np.nan, np.float32)):
        write_quantizer(package.artefact, Quantizer(np.ones((1, 1), np.float32)))
        with (package.artefact / QUANTIZER_FILE).open("wb") as file:
            np.savez(file, vectors=wrong, source=np.array("texts"))
        assert read_quantizer(package.artefact) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_serves_all_the_same(
    package: Package, tmp_path: Path, tiny_folder: Path
) -> None:
    """Each start calibrates, since nothing can be kept."""
    (package.artefact / QUANTIZER_FILE).unlink()
    package.artefact.chmod(0o500)
    try:
        again = load_package(str(tiny_folder), options(tmp_path), OnnxBackend)
        assert again.quantizer.id == package.quantizer.id
    finally:
        package.artefact.chmod(0o700)


def test_a_cache_that_cannot_be_written_is_said(
    package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path
) -> None:
    """Calibration on request fails with an error; a start goes on without keeping the vectors."""

    def full(*arguments: object, **keywords: object) -> None:
        del arguments, keywords
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ArtefactError, match="No space left"):
        write_quantizer(package.artefact, package.quantizer)
    assert [p.name for p in package.artefact.glob(f".*{QUANTIZER_FILE}")] == []
    (package.artefact / QUANTIZER_FILE).unlink()
    again = load_package(str(tiny_folder), options(tmp_path), OnnxBackend)
    assert again.quantizer.id == package.quantizer.id


def test_codes_of_the_default_model_keep_its_vectors(default_package: Package) -> None:
    """Of texts not calibrated on, hardly a value is clipped, and decoded vectors are near the exact ones."""
    things = ("house", "cat sleeps", "idea of law")
    texts = [f"{which} {thing}" for which in ("my red", "the old", "no") for thing in things]
    tokenizer = default_package.open_tokenizer(64)
    backend = OnnxBackend(default_package.graph, default_package.layout, BackendOptions())
    try:
        vectors = calibration_vectors(backend, tokenizer, default_package.pooler, texts)
    finally:
        backend.close()
    for dimensions in (384, 128, 32):
        cut = finish(vectors, dimensions=dimensions, normalize=True)
        quantizer = default_package.quantizer
        assert quantizer.clipped_share(cut) < 0.001
        codes = quantizer.int8(cut).astype(np.float64)
        similarities = (codes * cut).sum(axis=1) / np.linalg.norm(codes, axis=1)
        assert similarities.min() > 0.9995
