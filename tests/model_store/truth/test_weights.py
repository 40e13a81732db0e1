"""config.json and weights: what they say of vectors is honoured as transformers does, or refused by file and field."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from nestvec.backends.onnx import OnnxBackend
from nestvec.engine.backend import BackendOptions
from nestvec.engine.core.batching.collate import collate
from nestvec.errors import FormatError
from nestvec.export.architectures import export_graph
from nestvec.export.graph.builder import GraphBuilder
from nestvec.export.layers.blocks import activation
from nestvec.model_store.artefacts.fingerprint import HashCache, space_fingerprint
from nestvec.model_store.folder.model_folder import read_model_folder
from nestvec.model_store.folder.remote_code import with_code
from nestvec.model_store.sources.card import read_card
from nestvec.model_store.sources.checkpoints import read_tensors

from tests.model_store.truth.make_weights import (
    CASES,
    DECODER,
    EXPECTED,
    IDS,
    LLAMA,
    REASON_IR,
    Case,
    compressed,
    per_row,
    quantizer,
    write_case,
)
from tests.support.fakes import item
from tests.support.tiny import CONFIG

VECTORS: Mapping[str, list[list[float]]] = json.loads(EXPECTED.read_text())["vectors"]


def vectors_of(folder: Path, case: Case) -> np.ndarray[Any, Any]:
    """Export a case's folder as it is served; return the mean of each input's last states."""
    model = read_model_folder(folder, case.overrides)
    export_graph(folder, model.config, folder / "out.onnx")
    backend = OnnxBackend(folder / "out.onnx", model.layout, BackendOptions())
    states = backend.run(collate([item(*ids) for ids in IDS], model.layout)).hidden
    assert states is not None
    ends = np.cumsum([len(ids) for ids in IDS])
    return np.array([part.mean(axis=0) for part in np.split(states, ends[:-1])])


@pytest.mark.parametrize("name", CASES)
def test_a_folder_gives_what_transformers_gives(tmp_path: Path, name: str) -> None:
    """Attention as the authors' code has it, quantised weights with their scales, activations by all their names."""
    folder = write_case(tmp_path / "model", CASES[name])
    np.testing.assert_allclose(vectors_of(folder, CASES[name]), VECTORS[name], atol=1e-4)


def test_the_cases_tell_attentions_and_activations_apart() -> None:
    """An expectation that is another case's would prove nothing."""
    causal = np.array(VECTORS["qwen2"])
    assert np.abs(causal - VECTORS["qwen2, code of Stella"]).max() > 0.01
    kinds = ("gelu_python", "gelu_fast", "quick_gelu", "mish", "tanh", "sigmoid", "relu2")
    names = [f"bert, {name}" for name in kinds]
    for first, second in pairwise(names):
        assert np.abs(np.array(VECTORS[first]) - VECTORS[second]).max() > 1e-5


def quantized(**more: Any) -> dict[str, Any]:
    """Return a decoder's config with `quantization_config`."""
    return {**LLAMA, "quantization_config": more}


REFUSED: Mapping[str, tuple[Case, str]] = {
    "unknown code": (
        Case({**LLAMA, "auto_map": REASON_IR}),
        r"config\.json: 'auto_map'.*ReasonIRModel.*overrides\.code.*overrides\.is_causal",
    ),
    "unknown code of a known class's name": (
        Case({**DECODER, "auto_map": {"AutoModel": "modeling_x.Qwen2Model"}}),
        r"config\.json: 'auto_map'.*modeling_x\.Qwen2Model",
    ),
    "known code of another family": (
        Case({**CONFIG, "auto_map": {"AutoModel": "modeling.NewModel"}}),
        r"'auto_map'.*NewModel.*'bert'",
    ),
    "a repository that changed the code": (
        Case(
            {
                **CONFIG,
                "position_embedding_type": "alibi",
                "auto_map": {
                    "AutoModel": "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel"
                },
            }
        ),
        "'auto_map'.*qk-post-norm",
    ),
    "code of a configuration": (
        Case({**LLAMA, "auto_map": {"AutoConfig": "configuration_x.XConfig"}}),
        "'auto_map'.*XConfig",
    ),
    "auto_map of a wrong type": (Case({**LLAMA, "auto_map": ["x"]}), "'auto_map' must"),
    "a class of a wrong type": (Case({**LLAMA, "auto_map": {"AutoModel": 3}}), "'auto_map' must"),
    "is_causal of a wrong type": (Case({**LLAMA, "is_causal": "no"}), "'is_causal' must"),
    "use_sliding_window of a wrong type": (
        Case({**DECODER, "sliding_window": 4, "use_sliding_window": "false"}),
        "'use_sliding_window' must",
    ),
    "a size beyond all models": (
        Case({**LLAMA, "num_hidden_layers": 10**30}),
        "'num_hidden_layers' is",
    ),
    "is_causal for BERT": (Case(CONFIG, overrides={"is_causal": True}), "is_causal is for dec"),
    **{
        method: (
            Case(quantized(quant_method=method)),
            f"quantization_config.quant_method.*{method}",
        )
        for method in (
            *("gptq", "awq", "bitsandbytes", "quanto", "mxfp4", "fbgemm_fp8", "torchao"),
            *("hqq", "aqlm", "eetq", "higgs", "bitnet", "spqr", "vptq", "auto-round", "fp_quant"),
        )
    },
    **{
        f"format {layout}": (
            Case(quantized(quant_method="compressed-tensors", format=layout)),
            f"quantization_config.format.*{layout}",
        )
        for layout in ("nvfp4-pack-quantized", "mxfp8-quantized", "marlin-24", "mixed-precision")
    },
    "a packed group": (
        Case(
            {
                **LLAMA,
                "quantization_config": {
                    **compressed("channel"),
                    "config_groups": {"group_1": {"format": "pack-quantized"}},
                },
            }
        ),
        r"config_groups\.group_1\.format.*pack-quantized",
    ),
    "no method": (Case(quantized(bits=4)), r"quantization_config\.quant_method"),
    "not an object": (Case({**LLAMA, "quantization_config": 8}), "'quantization_config' must be"),
    "packed": (
        Case(quantized(quant_method="compressed-tensors", format="pack-quantized")),
        r"quantization_config\.format.*pack-quantized",
    ),
    "four bits": (
        Case({**LLAMA, "quantization_config": compressed("channel", num_bits=4)}),
        r"config_groups\.group_0\.weights\.num_bits",
    ),
    "reordered groups": (
        Case(
            {**LLAMA, "quantization_config": compressed("group", group_size=16, actorder="group")}
        ),
        "actorder",
    ),
    "rotated": (
        Case(
            {
                **LLAMA,
                "quantization_config": {**compressed("channel"), "transform_config": {"a": 1}},
            }
        ),
        "transform_config",
    ),
    "blocks of a wrong type": (
        Case(quantized(quant_method="fp8", weight_block_size=[128])),
        "weight_block_size",
    ),
    "no scales": (
        Case(
            {**LLAMA, "quantization_config": compressed("channel")},
            store=lambda t: {
                k: v
                for k, v in quantizer(np.int8, per_row)(t).items()
                if k != "layers.1.mlp.up_proj.weight_scale"
            },
        ),
        r"layers\.1\.mlp\.up_proj\.weight' is int8.*quantization_config",
    ),
    **{
        name: (Case({**CONFIG, "hidden_act": name}), f"hidden_act '{name}'")
        for name in ("prelu", "xielu", "laplace", "linear", "serf")
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """The message names the file or tensor, and the field."""
    case, message = REFUSED[name]
    folder = write_case(tmp_path / "model", case)
    with pytest.raises(FormatError, match=message):
        vectors_of(folder, case)


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A scale of another shape would be spread over the wrong rows."""
    folder = write_case(tmp_path / "model", CASES["fp8 by row"])
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    for name, entry in header.items():
        if name.endswith("_scale"):
            entry["shape"] = [2, entry["shape"][0] // 2]
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])
    with pytest.raises(FormatError, match=r"weight_scale' has shape .* does not fit"):
        vectors_of(folder, CASES["fp8 by row"])


# What config.json of models that have cards (and of others of their kind) says of the authors' code, by family.
CODE_OF_CARDS: Mapping[str, tuple[str, ...]] = {
    "jina_bert": (
        "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig",
        "jinaai/jina-bert-implementation--modeling_bert.JinaBertForMaskedLM",
        "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
        "jinaai/jina-bert-implementation--modeling_bert.JinaBertForSequenceClassification",
    ),
    "jina_embeddings_v3": (
        "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
        "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
        "jinaai/xlm-roberta-flash-implementation--modeling_xlm_roberta.XLMRobertaForMaskedLM",
        "jinaai/xlm-roberta-flash-implementation--modeling_xlm_roberta.XLMRobertaModel",
    ),
    "gte": (
        "Alibaba-NLP/new-impl--configuration.NewConfig",
        "Alibaba-NLP/new-impl--modeling.NewModel",
        "Alibaba-NLP/new-impl--modeling.NewForMaskedLM",
        "modeling.NewForSequenceClassification",
        "configuration_hf_alibaba_nlp_gte.GteConfig",
        "modeling_hf_alibaba_nlp_gte.GteModel",
    ),
    "nomic_bert": (
        "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
        "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
        "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertForPreTraining",
    ),
    "nvembed": ("configuration_nvembed.NVEmbedConfig", "modeling_nvembed.NVEmbedModel"),
    "eurobert": ("configuration_eurobert.EuroBertConfig", "modeling_eurobert.EuroBertModel"),
}


@pytest.mark.parametrize("family", CODE_OF_CARDS)
def test_code_of_models_with_cards_is_known(family: str) -> None:
    """It computes what the family computes, so nothing is added to config.json."""
    config = {"auto_map": {f"AutoModel{n}": name for n, name in enumerate(CODE_OF_CARDS[family])}}
    assert with_code(config, family, {}) == config


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu_10", [-0.0, 0.841345, 10.0]),
        ("relu6", [0.0, 1.0, 6.0]),
        ("relu2", [0.0, 1.0, 144.0]),
        ("leaky_relu", [-0.12, 1.0, 12.0]),
        ("quick_gelu", [-12 / (1 + np.exp(1.702 * 12)), 1 / (1 + np.exp(-1.702)), 12.0]),
    ],
)
def test_bounds_of_activations(tmp_path: Path, name: str, expected: list[float]) -> None:
    """A tiny model's values stay within the bounds, so they are tried on -12, 1 and 12."""
    graph = GraphBuilder("activation")
    value = activation(graph, graph.input("rows", "float32", ("B", 3)), name)
    graph.output(value, "pooled", ("B", 3))
    graph.save(tmp_path / "graph.onnx")
    session = ort.InferenceSession(tmp_path / "graph.onnx", providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {"rows": np.array([[-12, 1, 12]], np.float32)})
    np.testing.assert_allclose(values[0], expected, atol=1e-5)


def test_what_code_says_is_another_space(tmp_path: Path) -> None:
    """A bidirectional Qwen2 and a causal one have no vectors in common; a folder without code keeps its space."""
    hashes = HashCache(tmp_path / "hashes.json")
    spaces = {}
    for name in ("qwen2", "qwen2, code of Stella"):
        model = read_model_folder(write_case(tmp_path / name, CASES[name]))
        spaces[name] = space_fingerprint(model, hashes)
    assert len(set(spaces.values())) == len(spaces)


def test_quantised_weights_are_not_merged(tmp_path: Path) -> None:
    """Averages of quantised numbers with several scales mean nothing."""
    folder = write_case(tmp_path / "model", CASES["int8 by row"])
    with pytest.raises(FormatError, match="quantization_config"):
        read_tensors(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [('code = "mine"', "overrides.code"), ('is_causal = "no"', "overrides.is_causal")],
)
def test_a_card_may_only_call_code_plain(tmp_path: Path, line: str, message: str) -> None:
    """Other values would be promises that nobody keeps."""
    card = tmp_path / "card.toml"
    card.write_text(f'name = "x"\n[source]\nkind = "hub"\nname = "a/b"\n[overrides]\n{line}\n')
    with pytest.raises(FormatError, match=message):
        read_card(card)
