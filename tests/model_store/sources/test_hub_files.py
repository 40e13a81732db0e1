"""Which large files of a Hub repository are pulled: those that reading the folder asks for, and no others."""

from pathlib import Path

import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from nestvec.errors import FormatError, SourceError
from nestvec.model_store.sources.hub import _hint
from nestvec.model_store.sources.hub_files import external_files, large_files, small_files

from tests.model_store.folder.test_own_graph import write_graph
from tests.support.tiny import CONFIG, write_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BGE_M3 = [
    *("1_Pooling/config.json", "README.md", "colbert_linear.pt", "config.json"),
    *("config_sentence_transformers.json", "modules.json", "onnx/model.onnx"),
    *("onnx/model.onnx_data", "pytorch_model.bin", "sentence_bert_config.json"),
    *("sentencepiece.bpe.model", "sparse_linear.pt", "tokenizer.json", "tokenizer_config.json"),
]
ADAPTER = "adapters/a/adapter_model.safetensors"
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
        ("bert", ["pytorch_model.bin"], ["pytorch_model.bin"]),
        ("bert", ["pytorch_model.bin", *GRAPH], GRAPH),
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
    assert large_files("org/x", folder, present, reads_pickles=True) == expected


@pytest.mark.parametrize("present", [["model.fp16.safetensors"], []])
def test_a_repository_without_what_is_read_is_refused(folder: Path, present: list[str]) -> None:
    """Files by other names would be pulled for nothing."""
    with pytest.raises(
        SourceError, match=r"neither safetensors, pytorch_model\.bin nor an ONNX graph"
    ):
        large_files("org/x", folder, present, reads_pickles=True)


def test_a_broken_index_is_refused(folder: Path) -> None:
    """It would say nothing of the shards."""
    (folder / INDEX).write_text("[]")
    with pytest.raises(FormatError, match="not an index of weights"):
        large_files("org/x", folder, [INDEX, *SHARDS], reads_pickles=True)


@pytest.mark.parametrize(
    ("graph", "expected"), [("onnx/model.onnx", "onnx/weights.bin"), ("model.onnx", "weights.bin")]
)
def test_weights_of_a_graph_are_pulled_by_any_name(
    tmp_path: Path, graph: str, expected: str
) -> None:
    """The graph says in which files they lie."""
    write_graph(tmp_path / graph, external="weights.bin")
    assert external_files(tmp_path / graph) == {expected}


def test_bge_m3_comes_with_its_layers(tmp_path: Path) -> None:
    """Its weights and both layers come as published; the graph, which gives less, is left there."""
    write_json(tmp_path / "config.json", {**CONFIG, "model_type": "xlm-roberta"})
    small = small_files(BGE_M3, reads_pickles=True)
    assert {"colbert_linear.pt", "sparse_linear.pt", "modules.json"} <= set(small)
    assert not {"README.md", "pytorch_model.bin", "sentencepiece.bpe.model"} & set(small)
    assert large_files("m3", tmp_path, BGE_M3, reads_pickles=True) == ["pytorch_model.bin"]


def test_without_the_setting_no_pickle_is_fetched(tmp_path: Path) -> None:
    """Then the graph is taken, and without one the error names the setting."""
    write_json(tmp_path / "config.json", {**CONFIG, "model_type": "xlm-roberta"})
    assert not [f for f in small_files(BGE_M3, reads_pickles=False) if f.endswith((".pt", ".bin"))]
    graph = ["onnx/model.onnx", "onnx/model.onnx_data"]
    assert large_files("m3", tmp_path, BGE_M3, reads_pickles=False) == graph
    with pytest.raises(SourceError, match="read_pickles is off"):
        large_files("x", tmp_path, ["config.json", "pytorch_model.bin"], reads_pickles=False)


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    """Of each pair that a repository has, only the safe file is fetched."""
    write_json(tmp_path / "config.json", {**CONFIG, "model_type": "t5"})
    present = [
        *("model.safetensors", "pytorch_model.bin", "2_Dense/config.json"),
        *("2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"),
        *("3_Dense/config.json", "3_Dense/pytorch_model.bin"),
    ]
    small = small_files(present, reads_pickles=True)
    assert "2_Dense/pytorch_model.bin" not in small
    assert {"2_Dense/model.safetensors", "3_Dense/pytorch_model.bin"} <= set(small)
    assert large_files("x", tmp_path, present, reads_pickles=True) == ["model.safetensors"]


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    """Names in an index are untrusted: only files that are there, at the top, are fetched."""
    write_json(tmp_path / "config.json", {**CONFIG, "model_type": "bert"})
    names = ["pytorch_model-00001-of-00002.bin", "../../x.bin", "a/b.bin", "*"]
    weight_map = {str(number): name for number, name in enumerate(names)}
    write_json(tmp_path / "pytorch_model.bin.index.json", {"weight_map": weight_map})
    present = ["config.json", "pytorch_model.bin.index.json", names[0], "a/b.bin"]
    assert "pytorch_model.bin.index.json" in small_files(present, reads_pickles=True)
    assert large_files("x", tmp_path, present, reads_pickles=True) == [names[0]]


def test_pickles_of_an_unknown_family_are_not_fetched(tmp_path: Path) -> None:
    """The error says that the family is the reason."""
    write_json(tmp_path / "config.json", {**CONFIG, "model_type": "unknown"})
    with pytest.raises(SourceError, match="no family that the exporter knows"):
        large_files("x", tmp_path, ["config.json", "pytorch_model.bin"], reads_pickles=True)


def test_the_modules_of_a_routers_routes_are_fetched(tmp_path: Path) -> None:
    """They lie in folders that are named after a route, a number and a class; the encoder may be one of them."""
    own = [
        *("modules.json", "router_config.json", "query_0_SparseStaticEmbedding/config.json"),
        *("query_0_SparseStaticEmbedding/tokenizer.json", "document_1_SpladePooling/config.json"),
        *(
            "query_0_SparseStaticEmbedding/model.safetensors",
            "document_0_MLMTransformer/config.json",
        ),
    ]
    encoder = "document_0_MLMTransformer/model.safetensors"
    present = [*own, encoder, "openvino/config.json", "checkpoint-500/config.json", "README.md"]
    assert set(own) <= set(small_files(present, reads_pickles=True)) <= {*own, encoder}
    assert encoder in large_files("x", tmp_path, present, reads_pickles=True)


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("jina_embeddings_v5", [SINGLE, "adapters/a/adapter_config.json", ADAPTER]),
        ("bert", [SINGLE]),
    ],
)
def test_a_models_own_adapters_are_fetched(
    tmp_path: Path, model_type: str, expected: list[str]
) -> None:
    """Settings and safetensors of each, before a graph; neither code nor pickles nor names that are patterns."""
    write_json(tmp_path / "config.json", {**CONFIG, "model_type": model_type})
    present = [
        *("README.md", "adapters/a/README.md", "adapters/a/adapter_config.json", ADAPTER),
        *(
            "adapters/a/adapter_model.bin",
            "adapters/a/modeling.py",
            "adapters/*/adapter_config.json",
        ),
        *("adapters/a/b/adapter_config.json", "adapter_config.json", "config.json", SINGLE),
        *(["onnx/model.onnx"] if model_type != "bert" else []),
    ]
    assert large_files("x", tmp_path, present, reads_pickles=True) == expected


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
