"""From a model's name to a package: fetched, read, exported and described."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.text.encoded import TokenizeOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Layout, Truncation
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import FormatError, ModelError, ProbeError
from nestvec.model_store.artefacts.probes import compute_vectors
from nestvec.model_store.package import load_package
from nestvec.model_store.sources.fetch import SourceOptions

from tests.backends.test_onnx import write_padded
from tests.support.tiny import CONFIG, write_json, write_tiny_bert

CARD = """
name = "tiny"
aliases = ["org/tiny"]
license = "MIT"
trained_dimensions = [16, 8]
[source]
kind = "folder"
name = "{folder}"
"""


def options(tmp_path: Path) -> SourceOptions:
    """Return options with a cache and a card folder below the test's folder."""
    return SourceOptions(cache_dir=tmp_path / "cache", card_dirs=(tmp_path,), is_offline=True)


def test_a_card_gives_name_aliases_and_trained_dimensions(tmp_path: Path) -> None:
    """What the files say and what the card says come together; the native size always counts as trained."""
    folder = write_tiny_bert(tmp_path / "model")
    (tmp_path / "tiny.toml").write_text(CARD.format(folder=folder))
    package = load_package("org/tiny", options(tmp_path), OnnxBackend)
    assert (package.spec.name, package.aliases) == ("tiny", ("org/tiny",))
    assert package.spec.trained_dimensions == (32, 16, 8)
    assert package.spec.license == "MIT"
    assert package.is_new
    assert not load_package("tiny", options(tmp_path), OnnxBackend).is_new


def test_a_second_start_needs_nothing_but_the_cache(tmp_path: Path) -> None:
    """A cache that cannot be written serves what it holds."""
    folder = write_tiny_bert(tmp_path / "model")
    load_package(str(folder), options(tmp_path), OnnxBackend)
    hashes = tmp_path / "cache/hashes.json"
    hashes.unlink()
    hashes.mkdir()  # root may write to read-only folders, so writing is blocked in another way
    assert not load_package(str(folder), options(tmp_path), OnnxBackend).is_new


def test_vectors_that_differ_from_the_published_ones_stop_the_export(tmp_path: Path) -> None:
    """A model that is not what its card says is never cached."""
    folder = write_tiny_bert(tmp_path / "model")
    published = '[[published]]\ntext = "alpha"\nfirst_values = [9.0]\n'
    (tmp_path / "tiny.toml").write_text(CARD.format(folder=folder) + published)
    with pytest.raises(ProbeError):
        load_package("tiny", options(tmp_path), OnnxBackend)
    assert list((tmp_path / "cache/artefacts").iterdir()) == []


def test_a_shorter_limit_may_be_served_a_longer_one_not(tmp_path: Path) -> None:
    """`max_tokens` may be smaller than what the model takes, but not larger."""
    folder = write_tiny_bert(tmp_path / "model")
    package = load_package(str(folder), options(tmp_path), OnnxBackend, max_tokens=10)
    assert (package.spec.max_tokens, package.native_max_tokens) == (10, 24)
    with pytest.raises(FormatError, match="takes at most 24"):
        load_package(str(folder), options(tmp_path), OnnxBackend, max_tokens=25)


def test_a_foreign_graph_is_served_padded(tmp_path: Path) -> None:
    """An architecture that cannot be exported is served from its own ONNX file and pooled as its files say."""
    folder = write_tiny_bert(tmp_path / "model", config={"hidden_size": 32})
    (folder / "model.safetensors").unlink()
    write_json(
        folder / "config.json",
        {**CONFIG, "model_type": "strange", "hidden_size": 3, "vocab_size": 128},
    )
    (folder / "onnx").mkdir()
    write_padded(folder / "onnx/model.onnx")
    with pytest.raises(ModelError):
        # Its table has four rows only: the probes' ids are beyond it.
        load_package(str(folder), options(tmp_path), OnnxBackend)
    write_padded(folder / "onnx/model.onnx", rows=128)
    package = load_package(str(folder), options(tmp_path), OnnxBackend)
    assert package.layout is Layout.PADDED
    backend = OnnxBackend(package.graph, package.layout, BackendOptions())
    tokenizer = Tokenizer(package.folder.tokenizer_path, max_tokens=24, vocabulary_size=128)
    vectors = compute_vectors(backend, tokenizer, Pooler("mean"), ["alpha", "one two three"])
    ids = tokenizer.encode_texts(["alpha"], TokenizeOptions(Truncation.END))[0].ids
    table = np.arange(128 * 3, dtype=np.float64).reshape(128, 3)
    mean = table[ids].mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_graph_of_another_width_is_refused(tmp_path: Path) -> None:
    """config.json and the graph must agree on the number of dimensions."""
    folder = write_tiny_bert(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    write_padded(folder / "onnx/model.onnx", rows=128)
    with pytest.raises(FormatError, match=r"gives 3 values, config\.json says 32"):
        load_package(str(folder), options(tmp_path), OnnxBackend)
    shutil.rmtree(folder)
