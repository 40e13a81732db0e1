"""Golden probes: they pass on the artefact they were made with, and catch any other."""

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.vectors.pooler import Pooler
from nestvec.errors import ProbeError
from nestvec.model_store.artefacts.probes import (
    PROBE_TEXTS,
    check_probes,
    check_published,
    compute_vectors,
)
from nestvec.model_store.package import Package
from nestvec.model_store.sources.card import PublishedVector


@pytest.fixture(scope="module")
def backend(tiny_package: Package) -> OnnxBackend:
    """Open the tiny BERT."""
    return OnnxBackend(tiny_package.graph, tiny_package.layout, BackendOptions())


@pytest.fixture(scope="module")
def tokenizer(tiny_package: Package) -> Tokenizer:
    """Open its tokenizer."""
    spec = tiny_package.spec
    return Tokenizer(
        tiny_package.folder.tokenizer_path,
        max_tokens=spec.max_tokens,
        vocabulary_size=spec.vocabulary_size,
    )


def test_probes_hold_together_and_alone(
    tiny_package: Package, backend: OnnxBackend, tokenizer: Tokenizer
) -> None:
    """Vectors of the probes, as one batch and one by one, are those stored at export."""
    together = compute_vectors(backend, tokenizer, Pooler("mean"), PROBE_TEXTS)
    check_probes(together, tiny_package.probes, "cpu")
    alone = [compute_vectors(backend, tokenizer, Pooler("mean"), [text])[0] for text in PROBE_TEXTS]
    check_probes(np.stack(alone), tiny_package.probes, "cpu")


def test_wrong_pooling_is_caught(
    tiny_package: Package, backend: OnnxBackend, tokenizer: Tokenizer
) -> None:
    """Wrong pooling is the commonest silent fault of embedding servers."""
    wrong = compute_vectors(backend, tokenizer, Pooler("cls"), PROBE_TEXTS)
    with pytest.raises(ProbeError, match="differ from the stored ones"):
        check_probes(wrong, tiny_package.probes, "cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_any_damage_is_caught(tiny_package: Package, value: float) -> None:
    """A single wrong value is caught, NaN too, which compares false with everything."""
    vectors = tiny_package.probes.copy()
    vectors[3, 7] = value
    with pytest.raises(ProbeError):
        check_probes(vectors, tiny_package.probes, "cpu")


def test_another_number_of_probes_is_caught(tiny_package: Package) -> None:
    """An artefact of an older set of probes is refused."""
    with pytest.raises(ProbeError, match="shape"):
        check_probes(tiny_package.probes[1:], tiny_package.probes, "cpu")


def test_published_values_are_compared(backend: OnnxBackend, tokenizer: Tokenizer) -> None:
    """Right values pass, wrong ones do not."""
    (vector,) = compute_vectors(backend, tokenizer, Pooler("mean"), ["alpha"])
    check_published(
        backend, tokenizer, Pooler("mean"), [PublishedVector("alpha", tuple(vector[:3].tolist()))]
    )
    check_published(backend, tokenizer, Pooler("mean"), [])
    with pytest.raises(ProbeError, match="authors publish"):
        check_published(backend, tokenizer, Pooler("mean"), [PublishedVector("alpha", (9.0, 9.0))])
