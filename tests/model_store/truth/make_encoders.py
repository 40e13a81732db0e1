"""Folders of sentence-transformers' sparse and multi-vector encoders, and what the library makes of them.

The folders need numpy only. The expectations, `expected_encoders.json`, are made anew by a venv that has torch and
sentence-transformers 6: `python tests/model_store/truth/make_encoders.py`.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.export.families.weights import random_weights  # noqa: E402 - the path comes first
from tests.support.tiny import CONFIG, write_json, write_tokenizer  # noqa: E402

SEED: Final = 37
WIDTH: Final = CONFIG["hidden_size"]
TERMS: Final = CONFIG["vocab_size"]
TOKEN_WIDTH: Final = 6
TEXTS: Final = ["", "alpha", "the red and the blue : gamma", "[SEP] one two the two of a delta"]
MODELS: Final = "sentence_transformers.models"
SPARSE: Final = "sentence_transformers.sparse_encoder.models"
TOKENIZER: Final = {"tokenizer_class": "BertTokenizer", "model_max_length": 40}
MLM: Final = "sentence_transformers.sparse_encoder.models.MLMTransformer"
WEIGHTS: Final = "query_0_SparseStaticEmbedding"


@dataclass(frozen=True)
class EncoderCase:
    """A folder, and how it is refused; or sentence-transformers says what it gives.

    Attributes:
        files: Content by name of JSON files, which stand for the plain ones; None for none.
        tensors: Tensors' shapes by folder.
        encoder: Folder of the encoder's files, relative to the model's.
        query: Folder of the tokenizer of queries; "" where they have none of their own.
        refused: Parts of the error's message: the file, and the field; empty where the folder is served.
        model: Its family: "bert", or "gte".
    """

    files: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    encoder: str = ""
    query: str = WEIGHTS
    refused: tuple[str, ...] = ()
    model: str = "bert"


def routed(
    encoder: str = "",
    *refused: str,
    parameters: Mapping[str, Any] | None = None,
    terms: int = TERMS,
    model: str = "bert",
    files: Mapping[str, Any] | None = None,
) -> EncoderCase:
    """Make a case of an inference-free sparse model: a Router of stored weights and of a masked language model.

    Args:
        encoder: Folder of the encoder.
        refused: Parts of the error's message.
        parameters: The Router's.
        terms: Terms that have a weight in queries.
        model: The encoder's family.
        files: Content by name of further files.
    """
    pooling = "document_1_SpladePooling"
    return EncoderCase(
        {
            "modules.json": [{"idx": 0, "name": "0", "path": "", "type": f"{MODELS}.Router"}],
            "config_sentence_transformers.json": {
                "model_type": "SparseEncoder",
                "prompts": {"query": "", "document": ""},
            },
            "router_config.json": {
                "types": {
                    WEIGHTS: f"{SPARSE}.SparseStaticEmbedding",
                    encoder: MLM,
                    pooling: f"{SPARSE}.SpladePooling",
                },
                "structure": {"query": [WEIGHTS], "document": [encoder, pooling]},
                "parameters": {"default_route": "document"} if parameters is None else parameters,
            },
            f"{WEIGHTS}/config.json": {"frozen": False},
            f"{pooling}/config.json": {
                "pooling_strategy": "max",
                "activation_function": "log1p_relu",
                "word_embedding_dimension": None,
            },
            **(files or {}),
        },
        {WEIGHTS: {"weight": (terms,)}},
        encoder,
        refused=refused,
        model=model,
    )


def coded(refused: tuple[str, ...] = (), width: int = WIDTH, **settings: Any) -> EncoderCase:
    """Make a case of a SparseAutoEncoder behind a pooling and a Dense of 24 values."""
    kinds = [
        ("", f"{MODELS}.Transformer"),
        ("1_Pooling", f"{MODELS}.Pooling"),
        ("2_Dense", f"{MODELS}.Dense"),
        ("3_Normalize", f"{MODELS}.Normalize"),
        ("4_SparseAutoEncoder", f"{SPARSE}.SparseAutoEncoder"),
    ]
    return EncoderCase(
        {
            "modules.json": [
                {"idx": number, "name": str(number), "path": path, "type": kind}
                for number, (path, kind) in enumerate(kinds)
            ],
            "config_sentence_transformers.json": {
                "model_type": "SparseEncoder",
                "prompts": {"query": "", "document": ""},
            },
            "1_Pooling/config.json": {"embedding_dimension": WIDTH, "pooling_mode": "mean"},
            "2_Dense/config.json": {
                "in_features": WIDTH,
                "out_features": 24,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
            "4_SparseAutoEncoder/config.json": {
                "input_dim": 24,
                "hidden_dim": 100,
                "k_aux": 16,
                "dead_threshold": 30,
                **settings,
            },
        },
        {
            "2_Dense": {"linear.weight": (24, width), "linear.bias": (24,)},
            "4_SparseAutoEncoder": {
                "pre_bias": (24,),
                "latent_bias": (100,),
                "decoder.linear.weight": (100, 24),
                "stats_last_nonzero": (100,),
            },
        },
        query="",
        refused=refused,
    )


def tokens(
    *refused: str,
    expansion: Mapping[str, Any] | None = None,
    mask: Mapping[str, Any] | None = None,
    merging: Mapping[str, Any] | None = None,
    left_out: str | None = None,
    files: Mapping[str, Any] | None = None,
    **lengths: int,
) -> EncoderCase:
    """Make a case of token vectors that are compared one by one, as version 6 stores it.

    Args:
        refused: Parts of the error's message.
        expansion: How queries are filled up; None for not at all.
        mask: Settings of the MultiVectorMask.
        merging: Settings of a HierarchicalTokenPooling; None for none.
        left_out: Folder of a module that the chain lacks; None for none.
        files: Content by name of further files.
        lengths: Of queries, documents and any text.
    """
    names = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    own = "sentence_transformers.multi_vector_encoder.modules"
    base = "sentence_transformers.base.modules"
    chain = {
        "": f"{base}.transformer.Transformer",
        "1_Dense": f"{base}.dense.Dense",
        "2_MultiVectorMask": f"{own}.multi_vector_mask.MultiVectorMask",
        "3_Normalize": f"{base}.normalize.Normalize",
    }
    if merging is not None:
        chain["4_HierarchicalTokenPooling"] = f"{own}.token_pooling.HierarchicalTokenPooling"
    listed = [(path, kind) for path, kind in chain.items() if path != left_out]
    return EncoderCase(
        {
            "modules.json": [
                {"idx": number, "name": str(number), "path": path, "type": kind}
                for number, (path, kind) in enumerate(listed)
            ],
            "config_sentence_transformers.json": {
                "model_type": "MultiVectorEncoder",
                "prompts": {"query": "query : ", "document": "passage : "},
                "default_prompt_name": None,
                "similarity_fn_name": "maxsim",
            },
            "sentence_bert_config.json": {
                "transformer_task": "feature-extraction",
                "query_expansion": expansion,
                **lengths,
            },
            "1_Dense/config.json": {
                "in_features": WIDTH,
                "out_features": TOKEN_WIDTH,
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
                **names,
            },
            "2_MultiVectorMask/config.json": mask or {},
            "3_Normalize/config.json": names,
            "4_HierarchicalTokenPooling/config.json": merging,
            **(files or {}),
        },
        {"1_Dense": {"linear.weight": (TOKEN_WIDTH, WIDTH)}},
        query="",
        refused=refused,
    )


MERGING: Final = "4_HierarchicalTokenPooling/config.json"
SETTINGS: Final = "sentence_bert_config.json"
FIXED: Final = {"strategy": "fixed", "length": 12, "attend": False, "token": None}
CASES: Final[Mapping[str, EncoderCase]] = {
    "tokens: lengths by role": tokens(
        mask={"skiplist_words": [":", "the"], "skiplist_tasks": ["document"]},
        query_length=6,
        document_length=11,
        max_seq_length=8,
    ),
    "tokens: merged documents": tokens(
        expansion=FIXED,
        mask={"skiplist_words": [":"], "keep_only_token_ids": None},
        merging={
            "pool_factor": 2.0,
            "num_protected_tokens": 1,
            "normalize_embeddings": True,
            "tasks": ["document"],
        },
        document_length=20,
    ),
    "tokens: merged means as they are": tokens(
        expansion={"strategy": "min", "length": 9, "attend": True, "token": "[unused50]"},
        mask={"skiplist_words": ["the"], "skiplist_tasks": ["query", "document"]},
        merging={"pool_factor": 1.5, "num_protected_tokens": 0, "tasks": ["query", "document"]},
        query_length=11,
    ),
    "tokens: only some ids": tokens(
        *("2_MultiVectorMask/config.json", "keep_only_token_ids"), mask={"keep_only_token_ids": [7]}
    ),
    "tokens: words of no list": tokens(
        *("2_MultiVectorMask/config.json", "skiplist_words"), mask={"skiplist_words": "the"}
    ),
    "tokens: lengths without a mask": tokens(
        SETTINGS, "document_length", left_out="2_MultiVectorMask", document_length=20
    ),
    "tokens: an odd expansion": tokens(
        SETTINGS, "query_expansion", expansion={**FIXED, "strategy": "odd"}
    ),
    "tokens: an expansion of no object": tokens(
        SETTINGS, "query_expansion", files={SETTINGS: {"query_expansion": ["fixed"]}}
    ),
    "tokens: a strategy of no text": tokens(
        SETTINGS, "query_expansion", expansion={**FIXED, "strategy": ["fixed"]}
    ),
    "tokens: an expansion with an unknown token": tokens(
        *(SETTINGS, "query_expansion", "'[odd]'"), expansion={**FIXED, "token": "[odd]"}
    ),
    "tokens: an expansion on the left": tokens(
        *(SETTINGS, "query_expansion", "left"),
        expansion=FIXED,
        files={"tokenizer_config.json": {**TOKENIZER, "padding_side": "left"}},
    ),
    "tokens: PyLate's settings too": tokens(
        *(SETTINGS, "query_expansion", "PyLate"),
        expansion=FIXED,
        files={"config_sentence_transformers.json": {"query_prefix": "[unused50]"}},
    ),
    "tokens: merged before Normalize": tokens(
        "modules.json", "expected Normalize", merging={}, left_out="3_Normalize"
    ),
    "tokens: an odd factor": tokens(MERGING, "pool_factor", merging={"pool_factor": 0.5}),
    "tokens: an odd number of kept tokens": tokens(
        MERGING, "num_protected_tokens", merging={"num_protected_tokens": -1}
    ),
    "tokens: an odd scale": tokens(
        MERGING, "normalize_embeddings", merging={"normalize_embeddings": "l2"}
    ),
    "tokens: merged for another task": tokens(MERGING, "tasks", merging={"tasks": ["odd"]}),
    "sparse: codes of vectors": coded(k=8, normalize=False),
    "sparse: codes of standardized vectors": coded(k=60, normalize=True),
    "sparse: codes without a number": coded(("4_SparseAutoEncoder/config.json", "k must"), k=0),
    "sparse: the third version's queries": routed(model="gte"),
    "sparse: queries by weights": routed(),
    "sparse: an encoder in a folder": routed("document_0_MLMTransformer"),
    "sparse: queries by default": routed(parameters={"default_route": "query"}),
    "sparse: the first route by default": routed(
        parameters={"default_route": None, "allow_empty_key": True}
    ),
    "sparse: mapped routes": routed(
        parameters={
            "default_route": "query",
            "route_mappings": {"('query', 'text')": "query", "(None, None)": "document"},
        }
    ),
    "sparse: weights for fewer terms": routed("", "weight", "do not fit", terms=TERMS + 1),
    "sparse: another tokenizer for queries": routed(
        "",
        f"{WEIGHTS}/tokenizer.json",
        "another tokenizer",
        files={f"{WEIGHTS}/tokenizer_config.json": {**TOKENIZER, "do_lower_case": False}},
    ),
    "sparse: weights from elsewhere": routed(
        "", f"{WEIGHTS}/config.json", "path", files={f"{WEIGHTS}/config.json": {"path": "idf.json"}}
    ),
    "sparse: no settings": routed(
        "", "router_config.json", "missing", files={"router_config.json": None}
    ),
    "sparse: a table of no classes": routed(
        "", "router_config.json", "types", files={"router_config.json": {"types": ["x"]}}
    ),
    "sparse: a route of no modules": routed(
        "",
        *("router_config.json", "structure", "'query'"),
        files={"router_config.json": {"types": {"": MLM}, "structure": {"query": ["odd"]}}},
    ),
    "sparse: a route that is not there": routed(
        "", "router_config.json", "default_route", parameters={"default_route": "odd"}
    ),
}


def write_folder(folder: Path, case: EncoderCase) -> Path:
    """Write a case's folder: a tiny BERT as a masked language model, with the case's own files."""
    encoder = folder / case.encoder
    config, weights = masked_model(case.model)
    for place in {encoder, folder / case.query} if case.query else {encoder}:
        place.mkdir(parents=True, exist_ok=True)
        write_tokenizer(place / "tokenizer.json")
        write_json(place / "tokenizer_config.json", TOKENIZER)
    write_json(encoder / "config.json", config)
    save_file(weights, encoder / "model.safetensors")
    for name, content in case.files.items():
        if content is not None:
            write_json(folder / name, content)
    random = np.random.default_rng(SEED)
    for name, tensors in case.tensors.items():
        drawn = {
            tensor: random.standard_normal(shape).astype(np.float32)
            for tensor, shape in tensors.items()
        }
        save_file(drawn, folder / name / "model.safetensors")
    return folder


def masked_model(family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config.json and tensors of a masked language model whose vocabulary is tied to its word embeddings."""
    stored = json.loads((HERE.parents[1] / f"export/families/{family}.json").read_text())
    # BERT keeps its bias beside the decoder, and its transform under a name of its own.
    head = {
        "bert": {
            "cls.predictions.transform.dense.weight": (WIDTH, WIDTH),
            "cls.predictions.transform.dense.bias": (WIDTH,),
            "cls.predictions.transform.LayerNorm.weight": (WIDTH,),
            "cls.predictions.transform.LayerNorm.bias": (WIDTH,),
            "cls.predictions.bias": (TERMS,),
        },
        "gte": {
            "lm_head.dense.weight": (WIDTH, WIDTH),
            "lm_head.dense.bias": (WIDTH,),
            "lm_head.layer_norm.weight": (WIDTH,),
            "lm_head.layer_norm.bias": (WIDTH,),
            "lm_head.decoder.bias": (TERMS,),
        },
    }[family]
    shapes = {f"{family}.{name}": tuple(shape) for name, shape in stored["tensors"].items()}
    config = {**stored["config"], "architectures": [f"{family.title()}ForMaskedLM"]}
    return config, random_weights({**shapes, **head}, SEED)


def _terms(row: Any) -> list[list[float]]:
    """Return a vector's terms that weigh anything, (id, weight), ids rising."""
    return [[term, _rounded(row[term])] for term in np.flatnonzero(row).tolist()]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def ask(library: Any, name: str, _case: EncoderCase, folder: str) -> Any:
    """Return what the library makes of a folder: by role each text's terms, or its tokens' vectors."""
    if name.startswith("tokens"):
        model = library.MultiVectorEncoder(folder, device="cpu")
        encoders = {"query": model.encode_query, "document": model.encode_document}
        return {
            role: [
                [[_rounded(value) for value in row] for row in rows.tolist()]
                for rows in encode(TEXTS, convert_to_numpy=False)
            ]
            for role, encode in encoders.items()
        }
    model = library.SparseEncoder(folder, device="cpu")
    encoders = {
        "query": model.encode_query,
        "document": model.encode_document,
        "none": model.encode,
    }
    return {
        role: [_terms(row) for row in encode(TEXTS, convert_to_sparse_tensor=False).numpy()]
        for role, encode in encoders.items()
    }


if __name__ == "__main__":
    from tests.model_store.truth.library import write_expected

    write_expected(HERE / "expected_encoders.json", CASES, write_folder, ask)
