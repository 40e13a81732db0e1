"""Calibration of 8-bit vectors: at the first start by bundled texts, then by the user's own."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.vectors.postprocess import finish
from nestvec.engine.vectors.quantization import Quantiser
from nestvec.errors import ArtefactError, FormatError
from nestvec.model_store.artefacts.output_quantization import (
    FILE,
    bundled_texts,
    calibration_vectors,
    read_quantiser,
    write_quantiser,
)
from nestvec.model_store.output_calibration import calibrate
from nestvec.model_store.package import Package, prepare

from tests.model_store.test_package import options


@pytest.fixture
def package(tmp_path: Path, tiny_folder: Path) -> Package:
    """A tiny model in a cache of its own."""
    return prepare(str(tiny_folder), options(tmp_path), OnnxBackend)


def kept(package: Package) -> Quantiser:
    """What lies beside the artefact."""
    found = read_quantiser(package.artefact)
    assert found is not None
    return found


def test_a_first_start_calibrates_on_bundled_texts(
    package: Package, tmp_path: Path, tiny_folder: Path
) -> None:
    """About a thousand unit vectors, kept: the next start reads them."""
    assert package.quantiser.source == "bundled"
    vectors = package.quantiser.vectors
    assert vectors is not None
    assert vectors.shape == (len(bundled_texts(32)), 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    again = prepare(str(tiny_folder), options(tmp_path), OnnxBackend)
    assert again.quantiser.id == package.quantiser.id == kept(package).id


def test_the_bundled_texts_are_many_and_short() -> None:
    """A thousand or so; fewer for wide models, whose first start should not take minutes."""
    texts = bundled_texts(384)
    assert 1000 <= len(texts) <= 1600
    assert len(set(texts)) == len(texts)
    assert not any(len(set(text.split())) == 1 and len(text.split()) > 2 for text in texts)
    assert 100 <= len(bundled_texts(4096)) <= 200


def test_own_texts_replace_them(package: Package, tmp_path: Path) -> None:
    """And the bundled ones come back; what was outside before is said."""
    file = tmp_path / "own.txt"
    file.write_text("".join(f"alpha {n} red\n" for n in range(40)))
    done = calibrate(package, file, OnnxBackend)
    assert (done.quantiser.source, done.texts) == ("texts", 40)
    assert 0 <= done.clipped_before < 0.5
    assert kept(package).id == done.quantiser.id != package.quantiser.id
    back = calibrate(dataclasses.replace(package, quantiser=done.quantiser), None, OnnxBackend)
    assert kept(package).id == back.quantiser.id == package.quantiser.id


@pytest.mark.parametrize("content", ["one line\n", ""])
def test_too_few_texts_are_refused(package: Package, tmp_path: Path, content: str) -> None:
    """The earlier ranges stay."""
    file = tmp_path / "few.txt"
    file.write_text(content)
    with pytest.raises(FormatError, match="at least 16"):
        calibrate(package, file, OnnxBackend)
    assert kept(package).id == package.quantiser.id


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 but no more"])
def test_a_broken_file_is_made_anew(
    package: Package, tmp_path: Path, tiny_folder: Path, content: bytes
) -> None:
    """Never trusted."""
    (package.artefact / FILE).write_bytes(content)
    assert read_quantiser(package.artefact) is None
    again = prepare(str(tiny_folder), options(tmp_path), OnnxBackend)
    assert kept(again).id == package.quantiser.id


def test_vectors_that_are_none_are_not_trusted(package: Package) -> None:
    """Of another shape, or not finite."""
    for wrong in (np.zeros(3, np.float32), np.full((2, 32), np.nan, np.float32)):
        write_quantiser(package.artefact, Quantiser(np.ones((1, 1), np.float32)))
        with (package.artefact / FILE).open("wb") as file:
            np.savez(file, vectors=wrong, source=np.array("texts"))
        assert read_quantiser(package.artefact) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_serves_all_the_same(
    package: Package, tmp_path: Path, tiny_folder: Path
) -> None:
    """Calibrated at each start."""
    (package.artefact / FILE).unlink()
    package.artefact.chmod(0o500)
    try:
        again = prepare(str(tiny_folder), options(tmp_path), OnnxBackend)
        assert again.quantiser.id == package.quantiser.id
    finally:
        package.artefact.chmod(0o700)


def test_a_cache_that_cannot_be_written_is_said(
    package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_folder: Path
) -> None:
    """To `calibrate` as an error; a start goes on without keeping them."""

    def full(*given: object, **named: object) -> None:
        del given, named
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ArtefactError, match="No space left"):
        write_quantiser(package.artefact, package.quantiser)
    assert [p.name for p in package.artefact.glob(f".*{FILE}")] == []
    (package.artefact / FILE).unlink()
    again = prepare(str(tiny_folder), options(tmp_path), OnnxBackend)
    assert again.quantiser.id == package.quantiser.id


def test_codes_of_the_default_model_keep_its_vectors(default_package: Package) -> None:
    """Texts that were not calibrated on: hardly a value is clipped, and decoded vectors are near the exact ones."""
    things = ("house", "cat sleeps", "idea of law")
    texts = [f"{which} {thing}" for which in ("my red", "the old", "no") for thing in things]
    tokenizer = default_package.open_tokenizer(64)
    backend = OnnxBackend(default_package.graph, default_package.layout, BackendOptions())
    try:
        vectors = calibration_vectors(backend, tokenizer, default_package.outputs, texts)
    finally:
        backend.close()
    for dimensions in (384, 128, 32):
        cut = finish(vectors, dimensions=dimensions, normalize=True)
        quantiser = default_package.quantiser
        assert quantiser.clipped_share(cut) < 0.001
        codes = quantiser.int8(cut).astype(np.float64)
        near = (codes * cut).sum(axis=1) / np.linalg.norm(codes, axis=1)
        assert near.min() > 0.9995
