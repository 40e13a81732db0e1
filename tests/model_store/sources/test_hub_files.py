"""Which large files of a Hub repository are pulled: those that reading the folder asks for, and no others."""

from pathlib import Path

import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from nestvec.errors import FormatError, SourceError
from nestvec.model_store.sources.hub import _external_files, _hint, _hub_weights

from tests.model_store.folder.test_own_graph import write_graph
from tests.support.tiny import CONFIG, write_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
GRAPH = ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model.onnx_data_1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write the small files of a repository: a config.json of BERT and an index of two shards."""
    write_json(tmp_path / "config.json", CONFIG)
    write_json(tmp_path / INDEX, {"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": "../x"}})
    return tmp_path


@pytest.mark.parametrize(
    ("model_type", "present", "expected"),
    [
        ("bert", [SINGLE], [SINGLE]),
        ("bert", [SINGLE, INDEX, *SHARDS], [SINGLE]),
        ("bert", [INDEX, *SHARDS, "model.fp16.safetensors"], SHARDS),
        ("bert", [SINGLE, *GRAPH], [SINGLE]),
        ("bert", [*GRAPH, "onnx/model_int8.onnx"], GRAPH),
        ("model2vec", [SINGLE, *GRAPH], [SINGLE]),
        ("unknown", [SINGLE, *GRAPH], GRAPH),
        ("unknown", [SINGLE], [SINGLE]),
        ("unknown", ["onnx/model_quantized.onnx"], ["onnx/model_quantized.onnx"]),
        ("unknown", ["model_optimized.onnx"], ["model_optimized.onnx"]),
    ],
)
def test_what_is_read_is_pulled(
    folder: Path, model_type: str, present: list[str], expected: list[str]
) -> None:
    """A single file before an index; our export before a graph; a graph with the files named after it."""
    write_json(folder / "config.json", {**CONFIG, "model_type": model_type})
    assert _hub_weights("org/x", folder, present) == expected


@pytest.mark.parametrize("present", [["pytorch_model.bin"], ["model.fp16.safetensors"], []])
def test_a_repository_without_what_is_read_is_refused(folder: Path, present: list[str]) -> None:
    """Files by other names would be pulled for nothing."""
    with pytest.raises(SourceError, match="neither safetensors nor an ONNX graph"):
        _hub_weights("org/x", folder, present)


def test_a_broken_index_is_refused(folder: Path) -> None:
    """It would say nothing of the shards."""
    (folder / INDEX).write_text("[]")
    with pytest.raises(FormatError, match="not a safetensors index"):
        _hub_weights("org/x", folder, [INDEX, *SHARDS])


@pytest.mark.parametrize(
    ("graph", "expected"), [("onnx/model.onnx", "onnx/weights.bin"), ("model.onnx", "weights.bin")]
)
def test_weights_of_a_graph_are_pulled_by_any_name(
    tmp_path: Path, graph: str, expected: str
) -> None:
    """The graph says in which files they lie."""
    write_graph(tmp_path / graph, external="weights.bin")
    assert _external_files(tmp_path / graph) == {expected}


class TransportError(Exception):
    """What the HTTP client of the Hub's library raises where nothing answers; each of its versions has its own."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TransportError("refused"), "HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy"),
        (ConnectionError("refused"), "nestvec model pull org/model"),
        (OSError(28, "No space left on device"), ""),
    ],
    ids=["transport", "connection", "disk"],
)
def test_a_failed_download_says_what_may_help(error: Exception, says: str) -> None:
    """Where nothing answers, mirror, proxy and the way without a network are named; elsewhere they would mislead."""
    hint = _hint(error, "org/model")
    assert says in hint
    assert bool(hint) == bool(says)


def test_a_gated_or_private_repository_asks_for_a_token() -> None:
    """A gated repository names the terms and the token; one that is not found may be private."""
    for kind, says in (
        (GatedRepoError, "accept its terms"),
        (RepositoryNotFoundError, "check the"),
    ):
        error = kind.__new__(kind)
        Exception.__init__(error, "403")
        hint = _hint(error, "org/model")
        assert says in hint
        assert "HF_TOKEN" in hint
