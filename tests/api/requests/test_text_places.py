"""Each field of each route that text can come in by meets the bound on what a call may come to, before it is tokenized.

A field that a route learns is either given a case here, or said to hold no text.
"""

import dataclasses
import json
from typing import Any, Final

import pytest
from nestvec.api.dialects import (
    cohere,
    jina,
    ollama,
    open_inference,
    openai_body,
    perplexity,
    tei,
    vllm,
    voyage,
)
from nestvec.api.requests import chunking
from nestvec.api.routes import chunk, classify, rerank, rescore, similarity
from nestvec.engine import limits
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.text.preparation.instructions import Instruct
from nestvec.engine.types import OutputKind

from tests.api.applications import Jobs, MakeApi, line
from tests.support.served import SPEC, ServedOptions
from tests.support.tokenizer_calls import tokenized_chars

# What all inputs of a call may have, and what a prompt before each of them may come to, in characters.
MAX_READ_CHARS: Final = 32_000
MAX_TOKENS: Final = 500
TOKENIZED_CHARS: Final = 4_000
LONG: Final = "one two three " * 3000
MANY: Final = ["a"] * 100
MANY_LABELS: Final = [f"a{n}" for n in range(100)]
WORDY: Final = "one two " * 10
TEXTS: Final = dataclasses.replace(
    SPEC,
    prompts={"long": WORDY, "query": WORDY, "document": WORDY},
    instruct=Instruct("{instruction} : ", "{query} {response} "),
)
RANKS: Final = dataclasses.replace(
    SPEC, prompts={}, kinds=(OutputKind.LABELS,), labels=("relevance",)
)
EXAMPLE: Final = {"query": WORDY, "response": "a"}
END: Final = {"truncate": "end"}

Body = dict[str, Any]
OPENAI: Final[dict[str, Body]] = {
    "input": {"input": [LONG], **END},
    "prompt": {"input": MANY, "prompt": WORDY},
    "prompt_name": {"input": MANY, "prompt_name": "long"},
    "input_type": {"input": MANY, "input_type": "query"},
    "task": {"input": MANY, "task": "retrieval.query"},
    "instruction": {"input": MANY, "instruction": WORDY},
    "examples": {"input": MANY, "examples": [EXAMPLE] * 3},
    "late_chunking": {"input": [LONG], "late_chunking": {"splitter": "sentences"}},
    "context": {"input": MANY, "context": WORDY * 5},
    "messages": {"messages": [{"role": "user", "content": LONG}]},
}
# Of each route: its path, the fields it knows, and for each that text comes in by, or that adds text to others, a body
# that comes to more than is read.
ROUTES: Final[dict[str, tuple[str, frozenset[str], dict[str, Body]]]] = {
    "openai": ("/v1/embeddings", openai_body.FIELDS, OPENAI),
    "pooling": (
        "/pooling",
        vllm.POOLING_FIELDS,
        {**OPENAI, "pool_factor": {"input": MANY, "task": "token_embed", "pool_factor": 4}},
    ),
    "chunking": (
        "/v1/embeddings",
        frozenset(chunking.OPTIONS),
        {
            "spans": {"input": [LONG], "late_chunking": {"spans": [[[0, 5]]]}},
            "splitter": OPENAI["late_chunking"],
            "chunk_tokens": {
                "input": [LONG],
                "late_chunking": {"splitter": "tokens", "chunk_tokens": 4},
            },
            "overlap_tokens": {
                "input": [LONG],
                "late_chunking": {"splitter": "tokens", "chunk_tokens": 4, "overlap_tokens": 3},
            },
        },
    ),
    "jina": (
        "/v1/embeddings",
        jina.FIELDS,
        {
            "input": {"input": [{"text": LONG}], "truncate": True},
            "task": {"input": [{"text": "a"}] * 100, "task": "retrieval.query"},
            "late_chunking": {"input": [{"text": LONG}], "late_chunking": True, "truncate": True},
            "return_multivector": {"input": [{"text": LONG}], "return_multivector": True},
        },
    ),
    "cohere": (
        "/v2/embed",
        cohere.FIELDS,
        {
            "texts": {"texts": [LONG], "input_type": "search_query"},
            "inputs": {
                "inputs": [{"content": [{"type": "text", "text": LONG}]}],
                "input_type": "classification",
            },
            "input_type": {"texts": MANY, "input_type": "search_document"},
        },
    ),
    "voyage": (
        "/v1/embeddings",
        voyage.FIELDS,
        {
            "input": {"input": [LONG], "truncation": True},
            "input_type": {"input": MANY, "truncation": True, "input_type": "document"},
        },
    ),
    "multimodal": (
        "/v1/multimodalembeddings",
        voyage.MULTIMODAL_FIELDS,
        {
            "inputs": {"inputs": [{"content": [{"type": "text", "text": LONG}]}]},
            "input_type": {
                "inputs": [{"content": [{"type": "text", "text": "a"}]}] * 100,
                "input_type": "document",
            },
        },
    ),
    "contextualized": (
        "/v1/contextualizedembeddings",
        voyage.CONTEXTUALIZED_FIELDS,
        {
            "inputs": {"inputs": [[LONG]]},
            "input_type": {"inputs": [["a"]] * 100, "input_type": "document"},
            "enable_auto_chunking": {"inputs": [[LONG]], "enable_auto_chunking": True},
        },
    ),
    "contextualized, Perplexity": (
        "/v1/contextualizedembeddings",
        perplexity.CONTEXTUALIZED_FIELDS,
        {"input": {"input": [[LONG]]}},
    ),
    "ollama": ("/api/embed", ollama.FIELDS, {"input": {"input": [LONG]}}),
    "ollama, one": ("/api/embeddings", ollama.FIELDS, {"prompt": {"prompt": LONG}}),
    "tei embed": (
        "/embed",
        tei.EMBED_FIELDS,
        {
            "inputs": {"inputs": [LONG]},
            "prompt_name": {"inputs": MANY, "prompt_name": "long"},
        },
    ),
    "tei tokens": (
        "/embed_all",
        tei.EMBED_FIELDS,
        {"inputs": {"inputs": [LONG]}, "prompt_name": {"inputs": MANY, "prompt_name": "long"}},
    ),
    "tei tokenize": (
        "/tokenize",
        frozenset({"inputs", "prompt_name", "add_special_tokens"}),
        {"inputs": {"inputs": [LONG]}, "prompt_name": {"inputs": MANY, "prompt_name": "long"}},
    ),
    "tei similarity": (
        "/similarity",
        tei.SIMILARITY_FIELDS,
        {
            "inputs": {"inputs": {"source_sentence": "a", "sentences": [LONG]}},
            "parameters": {
                "inputs": {"source_sentence": "a", "sentences": MANY},
                "parameters": {"prompt_name": "long"},
            },
        },
    ),
    "score": (
        "/score",
        vllm.SCORE_FIELDS,
        {
            **{
                name: {other: ["a"], name: [LONG], **END}
                for pair in vllm.PAIRS
                for name, other in (pair[:2], pair[1::-1])
            },
            "instruction": {"queries": MANY, "documents": MANY, "instruction": WORDY},
        },
    ),
    "rerank": (
        "/rerank",
        rerank.FIELDS,
        {
            "query": {"query": LONG, "documents": MANY},
            "documents": {"query": "a", "documents": [LONG]},
            "rank_fields": {
                "query": "a",
                "documents": [{"x": LONG[:20_000], "y": LONG[:20_000]}],
                "rank_fields": ["x", "y"],
            },
            "instruction": {"query": "a", "documents": MANY, "instruction": LONG},
        },
    ),
    "similarities": (
        "/v1/similarity",
        similarity.FIELDS,
        {
            "pairs": {"pairs": [["a", LONG]], **END},
            "left": {"left": [LONG], "right": ["a"], **END},
            "right": {"left": ["a"], "right": [LONG], **END},
        },
    ),
    "labels": (
        "/v1/classify",
        classify.FIELDS,
        {
            "input": {"input": [LONG], "labels": ["a", "b"], **END},
            "labels": {"input": ["a"], "labels": ["b", LONG], **END},
            "template": {"input": ["a"], "labels": MANY_LABELS, "template": "{} " + WORDY},
        },
    ),
    "rescore": (
        "/v1/rescore",
        rescore.FIELDS,
        {
            "query": {"query": LONG, "documents": ["a"], **END},
            "documents": {"query": "a", "documents": [LONG], **END},
        },
    ),
    "chunks": (
        "/v1/chunk",
        chunk.FIELDS,
        {"input": {"input": [LONG], "splitter": "semantic"}},
    ),
    "tensors": (
        "/v2/models/org/fake-model/infer",
        open_inference.PARAMETER_FIELDS,
        {
            "inputs": {
                "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [LONG]}]
            },
            "prompt_name": {
                "inputs": [{"name": "text", "shape": [100], "datatype": "BYTES", "data": MANY}],
                "parameters": {"prompt_name": "long"},
            },
            "input_type": {
                "inputs": [{"name": "text", "shape": [100], "datatype": "BYTES", "data": MANY}],
                "parameters": {"input_type": "query"},
            },
        },
    ),
}
# Served by a cross-encoder, which reads two texts as one: so the query stands before each document.
RANKED: Final[dict[str, tuple[str, frozenset[str], dict[str, Body]]]] = {
    "tei rerank": (
        "/rerank",
        tei.RERANK_FIELDS,
        {
            "query": {"query": LONG[:600], "texts": MANY},
            "texts": {"query": "a", "texts": [LONG]},
            "instruction": {"query": "a", "texts": MANY, "instruction": WORDY},
        },
    ),
    "tei predict": ("/predict", tei.PREDICT_FIELDS, {"inputs": {"inputs": [["a", LONG]]}}),
    "classify": ("/classify", vllm.CLASSIFY_FIELDS, {"input": {"input": [LONG], **END}}),
    "rerank by pairs": (
        "/v1/rerank",
        rerank.FIELDS,
        {
            "query": {"query": LONG[:600], "documents": MANY},
            "documents": {"query": "a", "documents": [LONG]},
            "instruction": {"query": "a", "documents": MANY, "instruction": WORDY},
        },
    ),
}
# Fields that hold numbers, words out of a list, names, or nothing that is read.
NO_TEXT: Final = frozenset(
    {
        *(
            "model",
            "dimensions",
            "encoding_format",
            "output_encoding",
            "user",
            "normalize",
            "truncate",
            "map",
            "layers",
        ),
        *("groups", "weights", "metric", "output_types", "return_offsets"),
        *("output_dtype", "truncate_prompt_tokens", "truncation_side", "add_special_tokens"),
        *("use_activation", "embed_dtype", "endianness", "request_id", "priority", "padding"),
        "mm_processor_kwargs",
        *("language", "normalized", "embedding_type", "encoding_type", "images", "max_tokens"),
        *("embedding_types", "output_dimension", "truncation", "chunk_size", "chunk_overlap"),
        *("name", "options", "keep_alive", "truncation_direction", "parameters", "raw_scores"),
        *("return_text", "top_n", "top_k", "return_documents", "max_tokens_per_doc", "explain"),
        *("splitter", "chunk_tokens", "overlap_tokens"),
        *("vectors", "timeout", "binary_data_output", "add_special_tokens"),
        *("multi_label", "alpha", "lexical_weight", "fusion"),
    }
)
# Ollama's two routes share their fields, and each reads one of two; a cross-encoder has no prompts.
ELSEWHERE: Final = {
    "ollama": {"prompt"},
    "ollama, one": {"input"},
    "tei rerank": {"prompt_name"},
    "tei predict": {"prompt_name"},
    "rerank by pairs": {"rank_fields"},
}
ALL: Final = {**ROUTES, **RANKED}


@pytest.fixture
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_READ_CHARS", MAX_READ_CHARS)


@pytest.fixture
def tokenized(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters the tokenizer's library was given, call by call."""
    return tokenized_chars(monkeypatch)


@pytest.mark.parametrize("name", ALL)
def test_every_field_has_a_case_or_holds_no_text(name: str) -> None:
    """A new field of a route fails here until somebody has said what text it holds."""
    _, fields, cases = ALL[name]
    assert fields - cases.keys() - NO_TEXT - ELSEWHERE.get(name, set()) == set()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.usefixtures("_small_bounds")
async def test_each_place_of_text_is_bounded(
    make_api: MakeApi, tokenized: list[int], name: str
) -> None:
    """The request is refused, and hardly anything of it was tokenized or run: a short text beside it, at most."""
    bounds = ServiceLimits(max_tokens=MAX_TOKENS, max_token_vectors=100)
    spec = RANKS if name in RANKED else TEXTS
    api = make_api(ServedOptions(spec=spec, limits=bounds))
    path, _, bodies = ALL[name]
    for field, body in bodies.items():
        tokenized.clear()
        api.served.backend.batches.clear()
        answer = await api.client.post(path, json=body)
        assert 400 <= answer.status_code < 500, (field, answer.text)
        assert answer.status_code not in (401, 404, 405, 429), field
        assert sum(tokenized) <= TOKENIZED_CHARS, field
        assert sum(map(sum, api.served.backend.batches)) <= SPEC.max_tokens, field
        assert "one two" not in answer.text, field


async def test_lines_of_batches_are_bounded(jobs: Jobs, tokenized: list[int]) -> None:
    """A line of a batch meets the same bound; the other lines of its batch are answered."""
    lines = line("many", ["a"] * 2000, prompt="one two " * 200) + line("one", "alpha")
    batch = await jobs.until((await jobs.create(lines))["id"])
    (refused,) = (await jobs.rows(batch["error_file_id"])).values()
    assert refused["custom_id"] == "many"
    assert json.loads(json.dumps(refused["response"]))["status_code"] == 400
    assert (await jobs.rows(batch["output_file_id"])).keys() == {"one"}
    assert sum(tokenized) <= TOKENIZED_CHARS
