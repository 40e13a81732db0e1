"""From a folder to a package."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.text.encoded import Fit
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.types import Layout, Truncation
from nestvec.engine.vectors.pooler import Outputs
from nestvec.errors import FormatError, ModelError, ProbeError
from nestvec.model_store.artefacts.probes import compute_vectors
from nestvec.model_store.package import prepare
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
    """A cache and a card folder below the test's folder."""
    return SourceOptions(cache_dir=tmp_path / "cache", card_dirs=(tmp_path,), is_offline=True)


def test_a_card_gives_name_aliases_and_trained_dimensions(tmp_path: Path) -> None:
    """What files say and what the card says come together; the native size is always trained."""
    folder = write_tiny_bert(tmp_path / "model")
    (tmp_path / "tiny.toml").write_text(CARD.format(folder=folder))
    package = prepare("org/tiny", options(tmp_path), OnnxBackend)
    assert (package.spec.name, package.aliases) == ("tiny", ("org/tiny",))
    assert package.spec.trained_dimensions == (32, 16, 8)
    assert package.spec.license == "MIT"
    assert package.is_new
    assert not prepare("tiny", options(tmp_path), OnnxBackend).is_new


def test_a_second_start_needs_nothing_but_the_cache(tmp_path: Path) -> None:
    """A cache that cannot be written serves what it holds."""
    folder = write_tiny_bert(tmp_path / "model")
    prepare(str(folder), options(tmp_path), OnnxBackend)
    hashes = tmp_path / "cache/hashes.json"
    hashes.unlink()
    hashes.mkdir()  # root may write to read-only folders, so writing is blocked in another way
    assert not prepare(str(folder), options(tmp_path), OnnxBackend).is_new


def test_vectors_that_differ_from_the_published_ones_stop_the_export(tmp_path: Path) -> None:
    """A model that is not what its card says is never cached."""
    folder = write_tiny_bert(tmp_path / "model")
    published = '[[published]]\ntext = "alpha"\nfirst_values = [9.0]\n'
    (tmp_path / "tiny.toml").write_text(CARD.format(folder=folder) + published)
    with pytest.raises(ProbeError):
        prepare("tiny", options(tmp_path), OnnxBackend)
    assert list((tmp_path / "cache/artefacts").iterdir()) == []


def test_a_shorter_limit_may_be_served_a_longer_one_not(tmp_path: Path) -> None:
    """max_input_tokens."""
    folder = write_tiny_bert(tmp_path / "model")
    package = prepare(str(folder), options(tmp_path), OnnxBackend, max_tokens=10)
    assert (package.spec.max_tokens, package.native_max_tokens) == (10, 24)
    with pytest.raises(FormatError, match="takes at most 24"):
        prepare(str(folder), options(tmp_path), OnnxBackend, max_tokens=25)


def test_a_foreign_graph_is_served_padded(tmp_path: Path) -> None:
    """An architecture we cannot export, with an ONNX file: pooled as its files say."""
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
        prepare(str(folder), options(tmp_path), OnnxBackend)
    write_padded(folder / "onnx/model.onnx", rows=128)
    package = prepare(str(folder), options(tmp_path), OnnxBackend)
    assert package.layout is Layout.PADDED
    backend = OnnxBackend(package.graph, package.layout, BackendOptions())
    tokenizer = Tokenizer(package.tokenizer, max_tokens=24, vocabulary_size=128)
    found = compute_vectors(backend, tokenizer, Outputs("mean"), ["alpha", "one two three"])
    ids = tokenizer.encode_texts(["alpha"], Fit(Truncation.END))[0].ids
    table = np.arange(128 * 3, dtype=np.float64).reshape(128, 3)
    mean = table[ids].mean(axis=0)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_a_graph_of_another_width_is_refused(tmp_path: Path) -> None:
    """config.json and the graph must agree."""
    folder = write_tiny_bert(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    write_padded(folder / "onnx/model.onnx", rows=128)
    with pytest.raises(FormatError, match=r"gives 3 values, config\.json says 32"):
        prepare(str(folder), options(tmp_path), OnnxBackend)
    shutil.rmtree(folder)
