"""Each architecture against transformers' states: packed, alone, together, at lengths 1, 2, 17 and the longest."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.engine.types import ItemOptions, Layout
from nestvec.errors import FormatError, QualityError
from nestvec.export.architectures import (
    ARCHITECTURES,
    STATIC_TYPE,
    Architecture,
    ExportOptions,
    architecture_of,
    export_graph,
)
from nestvec.export.layers.attention import AttentionOps
from nestvec.model_store.artefacts.precision import BuildOptions, Precision
from nestvec.model_store.artefacts.probes import PROBE_TEXTS, check_probes, compute_vectors
from nestvec.model_store.package import load_package

from tests.export.families.harness import (
    SAME_GRAPHS,
    all_families,
    config_of,
    distinct_families,
    largest_error,
    load,
    states,
)
from tests.export.families.table import table
from tests.model_store.test_package import options
from tests.support.fakes import item
from tests.support.tiny import write_json, write_tokenizer

# Measured: about 1e-6.
TOLERANCE = 1e-4


def architecture(name: str) -> Architecture:
    """Return the architecture of a family's configuration."""
    return ARCHITECTURES[architecture_of(config_of(name))]


each = pytest.mark.parametrize("name", all_families())
each_distinct = pytest.mark.parametrize("name", distinct_families())


def test_every_architecture_has_its_files() -> None:
    """A new architecture cannot be forgotten; static tables have a test of their own."""
    assert {name.partition("~")[0] for name in all_families()} == set(ARCHITECTURES) - {STATIC_TYPE}


@each
def test_packed_states_match_transformers(tmp_path: Path, name: str) -> None:
    """States match in mixed batches, alone, and in batches of one length, which take other branches of attention."""
    family = load(name)
    assert largest_error(family, family.open(tmp_path)) < TOLERANCE


@each_distinct
def test_all_attention_ops_match_transformers(tmp_path: Path, name: str) -> None:
    """States match by the ops of 8-bit graphs, those for other runtimes, and the contrib op that long rows take."""
    family = load(name)
    family.write(tmp_path)
    for ops in AttentionOps:
        path = tmp_path / ops / "model.onnx"
        path.parent.mkdir()
        export_graph(tmp_path, family.config, path, ExportOptions(attention=ops))
        for tokens in (0, 128):
            options = BackendOptions(plain_attention_tokens=tokens)
            assert largest_error(family, OnnxBackend(path, Layout.PACKED, options)) < TOLERANCE


@each
def test_padded_graphs_match_transformers(tmp_path: Path, name: str) -> None:
    """The graph that `nestvec export --padded` writes gives the same states."""
    family = load(name)
    assert largest_error(family, family.open(tmp_path, padded=True)) < TOLERANCE


@each
def test_checkpoints_with_a_head_match_transformers(tmp_path: Path, name: str) -> None:
    """Checkpoints that keep the encoder under the family's name give the same states."""
    family = load(name)
    prefix = getattr(architecture(name), "prefix", "")
    assert largest_error(family, family.open(tmp_path, prefix=prefix)) < TOLERANCE


@each
def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path, name: str) -> None:
    """Whichever tensor is missing or misshapen, the export fails and, for a wrong shape, names it."""
    family = load(name)
    for number, tensor in enumerate(sorted(family.tensors)):
        missing = dataclasses.replace(family, tensors=copy.copy(family.tensors))
        del missing.tensors[tensor]
        with pytest.raises(FormatError, match="tensor"):
            missing.open(tmp_path / f"m{number}")
        wrong = dataclasses.replace(family, tensors=copy.copy(family.tensors))
        wrong.tensors[tensor] = np.zeros((3, 3, 3), np.float32)
        with pytest.raises(FormatError, match=f"'{tensor}' has shape"):
            wrong.open(tmp_path / f"w{number}")


@each
@pytest.mark.parametrize("wrong", [None, "many", -1, 0, 2.5, True, [], {}, ["x"]])
def test_a_strange_configuration_is_refused(name: str, wrong: object) -> None:
    """A strange field is refused by an error of ours, or read as if it were absent; nothing crashes."""
    config = config_of(name)
    optional = ("rope_parameters", "rope_scaling", "layer_types", "sliding_window", "head_dim")
    for field in {*config, *optional} - {"model_type"}:
        try:
            architecture(name).dimensions({**config, field: wrong})
        except FormatError as error:
            assert "config.json" in error.message  # noqa: PT017 - not every field is looked at


def test_unsupported_rope_scaling_is_refused() -> None:
    """Ignoring an unknown kind of scaling would give wrong vectors beyond the first few thousand tokens."""
    config = load("llama").config
    for scaling, field in (
        ({"rope_type": "longrope", "factor": 4.0}, "rope_type"),
        ({"type": "dynamic", "factor": 2.0}, "rope_type"),
        ({"type": "linear"}, "factor"),
        ({"type": "yarn", "factor": 2.0}, "original_max_position_embeddings"),
    ):
        with pytest.raises(FormatError, match=field):
            ARCHITECTURES["llama"].dimensions({**config, "rope_scaling": scaling})


def test_new_and_old_fields_of_modernbert_mean_the_same(tmp_path: Path) -> None:
    """The fields of transformers 5, a type for each layer and a base for each type, give the same states."""
    family = load("modernbert")
    old_fields = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    config = {key: value for key, value in family.config.items() if key not in old_fields}
    config["layer_types"] = ["full_attention", *["sliding_attention"] * 2, "full_attention"]
    config["rope_parameters"] = {
        "full_attention": {"rope_type": "default", "rope_theta": family.config[old_fields[1]]},
        "sliding_attention": {"rope_type": "default", "rope_theta": family.config[old_fields[2]]},
    }
    updated = dataclasses.replace(family, config=config)
    assert largest_error(updated, updated.open(tmp_path)) < TOLERANCE


@each
def test_the_longest_input_fills_the_position_table(name: str) -> None:
    """Rows of the position table before the first position are not counted."""
    family = load(name)
    longest = max(len(ids) for ids in family.inputs)
    assert architecture(name).dimensions(family.config).max_positions == longest


def test_the_page_is_up_to_date() -> None:
    """docs/architectures.md, which `make families-table` writes, lists all families; figures may differ by machine."""
    page = (Path(__file__).parents[3] / "docs/architectures.md").read_text()
    listed = {
        line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")
    }
    assert listed == {line.split("|")[1].strip(" `") for line in table().splitlines()[2:]}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (name, precision)
        for name in all_families()
        # Whose tokenizers have tokens of messages: tests/model_store/vision_language.
        if name not in ("qwen3_vl", "colmodernvbert", "colpali", "colqwen2")
        for precision in (Precision.FP32, Precision.INT8, Precision.INT8_ACCURATE)
        if precision is Precision.FP32 or name not in SAME_GRAPHS
    ],
)
def test_a_whole_folder_is_loaded(tmp_path: Path, name: str, precision: Precision) -> None:
    """A folder is read, exported, calibrated and probed, as at a server's first start."""
    family = load(name)
    folder = tmp_path / "model"
    family.write(folder)
    write_tokenizer(folder / "tokenizer.json")
    is_causal = name.partition("~")[0] in ("llama", "mistral", "qwen2", "qwen3")
    pooling = "lasttoken" if is_causal else "mean"
    write_json(folder / "1_Pooling/config.json", {"pooling_mode": pooling})
    if name in ("siglip", "siglip2"):  # whose texts are padded by a token that is read
        fields = {"pad_token": "[PAD]", "tokenizer_class": "PreTrainedTokenizerFast"}
        write_json(folder / "tokenizer_config.json", fields)
    build = BuildOptions(precision)
    try:
        package = load_package(str(folder), options(tmp_path), OnnxBackend, build=build)
    except QualityError:
        # Random weights need not survive 8 bits; the graph was exported all the same.
        assert precision is not Precision.FP32
        return
    assert package.spec.architecture == name.partition("~")[0]
    assert package.spec.max_tokens == max(len(ids) for ids in family.inputs)
    backend = OnnxBackend(package.graph, package.layout, BackendOptions())
    tokenizer = package.open_tokenizer(package.native_max_tokens)
    alone = [compute_vectors(backend, tokenizer, package.pooler, [text]) for text in PROBE_TEXTS]
    check_probes(np.concatenate(alone), package.probes, "cpu", build)


LAYER_FIELDS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "encoder_layers")


def shortened(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return the configuration of the same model without its last layers."""
    short = {
        name: shortened(value, layers) if isinstance(value, dict) else value
        for name, value in config.items()
    }
    short |= {name: layers for name in LAYER_FIELDS if name in short}
    layer_types: Any = short.get("layer_types")
    if isinstance(layer_types, list):
        short["layer_types"] = layer_types[:layers]
    return short


@each
def test_an_early_exit_is_the_model_without_its_last_layers(tmp_path: Path, name: str) -> None:
    """An exit has the final norm too; told to run all layers, the graph is the whole model."""
    family = load(name)
    family.write(tmp_path)
    graph, short = tmp_path / "exits" / "model.onnx", tmp_path / "short" / "model.onnx"
    for path in (graph, short):
        path.parent.mkdir()
    export_graph(tmp_path, family.config, graph, ExportOptions(takes_layer_count=True))
    backend = OnnxBackend(graph, Layout.PACKED, BackendOptions())
    assert largest_error(family, backend) < TOLERANCE
    assert backend.info.layers >= 2
    export_graph(tmp_path, shortened(family.config, 1), short)
    reference = states(OnnxBackend(short, Layout.PACKED, BackendOptions()), family.inputs)
    items = [item(*ids) for ids in family.inputs]
    exits = [ItemOptions(exits=(1,))] * len(items)
    early = backend.run(collate(items, Layout.PACKED, exits)).hidden
    assert early is not None
    np.testing.assert_allclose(early, reference, atol=TOLERANCE)
    if backend.info.gives_exits:
        exits = [ItemOptions(exits=(1, backend.info.layers))] * len(items)
        raw = backend.run(collate(items, Layout.PACKED, exits))
        np.testing.assert_allclose(raw.earlier[0], reference, atol=TOLERANCE)
        assert raw.hidden is not None
        np.testing.assert_allclose(raw.hidden, np.concatenate(family.expected), atol=TOLERANCE)
