"""The fields that parsers read, against the fields that the OpenAPI document describes.

Requests are parsed by hand, and models in `api/schemas` only describe them, so nothing but these tests holds the two
together. A field that only one side knows needs a reason in the table `PARSERS`.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from nestvec.api.dialects import (
    cohere,
    gemini,
    jina,
    ollama,
    open_inference,
    openai_body,
    perplexity,
    tei,
    vllm,
    voyage,
)
from nestvec.api.requests import api_request, report_request
from nestvec.api.routes import chunk, classify, rerank, rescore, similarity
from nestvec.api.schemas import chunk as chunk_docs
from nestvec.api.schemas import classify as classify_docs
from nestvec.api.schemas import cohere as cohere_docs
from nestvec.api.schemas import gemini as gemini_docs
from nestvec.api.schemas import jina as jina_docs
from nestvec.api.schemas import ollama as ollama_docs
from nestvec.api.schemas import open_inference as open_inference_docs
from nestvec.api.schemas import openai as openai_docs
from nestvec.api.schemas import perplexity as perplexity_docs
from nestvec.api.schemas import reports as report_docs
from nestvec.api.schemas import similarity as similarity_docs
from nestvec.api.schemas import tei as tei_docs
from nestvec.api.schemas import vllm as vllm_docs
from nestvec.api.schemas import voyage as voyage_docs
from pydantic import BaseModel
from typing_extensions import override

from tests.api.applications import Api, MakeApi
from tests.support.served import SPEC, ServedOptions

# Reasons for which a field is parsed or tolerated, and not described.
NO_EFFECT = "accepted because clients send it, and without effect"
REFUSED = "known only to be refused with a message of its own"
SPELLING = "another spelling of a field that is described"
SHARED = "belongs to another route, which shares the table of fields"

VLLM = {
    "messages": REFUSED,
    "padding": NO_EFFECT,
    "priority": NO_EFFECT,
    "request_id": NO_EFFECT,
}
RERANK = {
    "truncate": SPELLING,
    "rank_fields": "Cohere v1's, for documents that are objects",
    "priority": NO_EFFECT,
    "user": NO_EFFECT,
}
VLLM_LABELS = {
    "truncate": "ours, beside vLLM's `truncate_prompt_tokens`",
    "truncation_side": "vLLM's, beside `truncate_prompt_tokens`",
    "priority": NO_EFFECT,
    "request_id": NO_EFFECT,
    "user": NO_EFFECT,
}


@dataclass(frozen=True)
class Parser:
    """A parser of one form of body, and the model that describes it.

    Attributes:
        paths: Routes that take such a body, as in the OpenAPI document.
        model: Describes the body.
        fields: The parser's own table of what it accepts; None where the route has no table and ignores all others.
        undocumented: Fields that are accepted and not described, with the reason.
        unread: Fields that are accepted, and not read from the bodies of this test.
        also_read: Fields that are read, although the table does not name them.
        extra: Bodies beside the model's examples that make the parser read more.
        is_traced: Whether all reads can be seen here; the fake model cannot answer routes for classifiers.
    """

    paths: tuple[str, ...]
    model: type[BaseModel]
    fields: frozenset[str] | None = None
    undocumented: Mapping[str, str] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    also_read: frozenset[str] = frozenset()
    extra: tuple[dict[str, Any], ...] = ()
    is_traced: bool = True


PARSERS = [
    Parser(
        ("/v1/embeddings", "/openai/deployments/{deployment}/embeddings"),
        openai_docs.EmbeddingsRequest,
        openai_body.FIELDS,
        VLLM,
        frozenset({"padding", "priority", "request_id", "user"}),
        extra=(
            {"messages": []},
            {
                "input": ["a"],
                "groups": [1],
                "weights": [1],
                "context": "a",
                "return_offsets": False,
            },
            {"input": ["a"], "output_types": ["dense"]},
        ),
    ),
    Parser(("/v1/reports",), report_docs.CreateReport, report_request.FIELDS),
    # Reads a copy of the body, which the trace does not see.
    Parser(("/pooling",), vllm_docs.PoolingRequest, vllm.POOLING_FIELDS, VLLM, is_traced=False),
    Parser(
        ("/classify",),
        vllm_docs.ClassifyRequest,
        vllm.CLASSIFY_FIELDS,
        VLLM_LABELS,
        is_traced=False,
    ),
    Parser(
        ("/score",),
        vllm_docs.ScoreRequest,
        vllm.SCORE_FIELDS,
        {
            **dict.fromkeys(("text_1", "text_2", "items", "data_1", "data_2"), SPELLING),
            **VLLM_LABELS,
        },
        frozenset({"priority", "request_id", "user"}),
        extra=(
            {"text_1": "a", "text_2": "b"},
            {"queries": "a", "items": "b"},
            {"data_1": "a", "data_2": "b"},
        ),
    ),
    Parser(
        ("/v1/embeddings",),
        jina_docs.JinaRequest,
        jina.FIELDS,
        {"encoding_type": SPELLING, "encoding_format": SPELLING, "user": NO_EFFECT},
        frozenset({"user"}),
        extra=({"input": [{"text": "a"}]}, {"input": [{"text": "a"}], "return_offsets": False}),
    ),
    Parser(("/v1/embeddings",), voyage_docs.VoyageRequest, voyage.FIELDS),
    Parser(("/v1/multimodalembeddings",), voyage_docs.MultimodalRequest, voyage.MULTIMODAL_FIELDS),
    Parser(
        ("/v1/contextualizedembeddings",),
        voyage_docs.ContextualizedRequest,
        voyage.CONTEXTUALIZED_FIELDS,
        {"enable_auto_chunking": REFUSED, "chunk_size": NO_EFFECT, "chunk_overlap": NO_EFFECT},
        frozenset({"chunk_size", "chunk_overlap"}),
        # By the code shared with `/v1/embeddings`; its value is not used.
        also_read=frozenset({"truncation"}),
    ),
    Parser(
        ("/v1/contextualizedembeddings",),
        perplexity_docs.PerplexityDocumentsRequest,
        perplexity.CONTEXTUALIZED_FIELDS,
    ),
    Parser(
        ("/v2/embed", "/v1/embed"),
        cohere_docs.EmbedRequest,
        cohere.FIELDS,
        {"priority": NO_EFFECT},
        frozenset({"priority"}),
    ),
    Parser(
        ("/rerank", "/v1/rerank", "/v2/rerank"),
        cohere_docs.RerankRequest,
        rerank.FIELDS,
        {"top_k": "Voyage's", "truncation": "Voyage's", **RERANK},
        frozenset({"priority", "user"}),
        extra=({"query": "a", "documents": ["b"]},),
    ),
    Parser(
        ("/rerank", "/v1/rerank"),
        cohere_docs.VoyageRerankRequest,
        rerank.FIELDS,
        {"top_n": "Cohere's and Jina's", "max_tokens_per_doc": "Cohere's", **RERANK},
        frozenset({"priority", "user"}),
        extra=({"query": "a", "documents": ["b"], "truncation": None},),
    ),
    Parser(
        ("/rerank",),
        tei_docs.RerankRequest,
        tei.RERANK_FIELDS,
        {"prompt_name": SHARED},
        is_traced=False,
    ),
    Parser(
        ("/embed", "/"),
        tei_docs.EmbedRequest,
        tei.EMBED_FIELDS,
        {"parameters": "sent empty by huggingface_hub, and without effect"},
        frozenset({"parameters"}),
    ),
    Parser(
        ("/embed_all",),
        tei_docs.EmbedRequest,
        tei.EMBED_FIELDS,
        {"parameters": "sent empty by huggingface_hub, and without effect"},
        frozenset({"parameters"}),
    ),
    Parser(("/embed_sparse",), tei_docs.TokensRequest, tei.TOKEN_FIELDS, is_traced=False),
    Parser(
        ("/predict",),
        tei_docs.PredictRequest,
        tei.PREDICT_FIELDS,
        {"prompt_name": SHARED},
        is_traced=False,
    ),
    Parser(("/similarity", "/"), tei_docs.SimilarityRequest, tei.SIMILARITY_FIELDS),
    Parser(("/tokenize",), tei_docs.TokenizeRequest),
    Parser(("/decode",), tei_docs.DecodeRequest),
    Parser(
        ("/api/embed",),
        ollama_docs.EmbedRequest,
        ollama.FIELDS,
        {"name": SPELLING, "prompt": REFUSED},
        frozenset({"keep_alive"}),
        extra=({"name": "all-MiniLM-L6-v2", "input": "a"},),
    ),
    Parser(
        ("/api/embeddings",),
        ollama_docs.EmbeddingsRequest,
        ollama.FIELDS,
        {
            "name": SPELLING,
            "keep_alive": NO_EFFECT,
            "input": REFUSED,
            **dict.fromkeys(("truncate", "dimensions"), SHARED),
        },
        frozenset({"truncate", "dimensions", "keep_alive"}),
        extra=({"prompt": "a"},),
    ),
    Parser(
        ("/api/show", "/api/pull"),
        ollama_docs.NameRequest,
        undocumented={"name": SPELLING},
        extra=({"name": "all-MiniLM-L6-v2"},),
    ),
    Parser(("/v2/models/{rest}",), open_inference_docs.InferRequest),
    Parser(
        ("/v1beta/models/{model}:embedContent",),
        gemini_docs.EmbedContentBody,
        gemini.REQUEST_FIELDS | {"autoTruncate"},
        is_traced=False,
    ),
    Parser(
        ("/v1beta/models/{model}:batchEmbedContents",),
        gemini_docs.BatchEmbedContentsRequest,
        gemini.BATCH_FIELDS,
        is_traced=False,
    ),
    Parser(
        ("/v1/similarity",),
        similarity_docs.SimilarityRequest,
        similarity.FIELDS,
        {"user": NO_EFFECT},
        frozenset({"user"}),
    ),
    Parser(
        ("/v1/classify",),
        classify_docs.LabelsRequest,
        classify.FIELDS,
        {"user": NO_EFFECT},
        frozenset({"user"}),
    ),
    Parser(
        ("/v1/chunk",),
        chunk_docs.ChunkRequest,
        chunk.FIELDS,
        {"user": NO_EFFECT},
        frozenset({"user"}),
    ),
    Parser(
        ("/v1/rescore",),
        similarity_docs.RescoreRequest,
        rescore.FIELDS,
        {"user": NO_EFFECT},
        frozenset({"user"}),
    ),
]
# Bodies of no dialect: operators' and the job store's.
OTHERS = {"/admin/models/load", "/admin/models/unload", "/v1/batches", "/v1/files"}


def name_of(parser: Parser) -> str:
    """Return the id of a test's case."""
    return f"{parser.paths[0]} {parser.model.__name__}"


each_parser = pytest.mark.parametrize("parser", PARSERS, ids=name_of)


@each_parser
def test_every_field_that_is_accepted_is_described_or_has_a_reason(parser: Parser) -> None:
    """A parser's table of fields and the model in /docs differ by the fields named above only."""
    documented = set(parser.model.model_fields)
    if parser.fields is None:
        assert not documented & parser.undocumented.keys()
        return
    assert parser.fields - documented == parser.undocumented.keys()
    assert documented <= parser.fields, "described, and not accepted"


class TracedBody(dict[str, Any]):
    """A body that remembers the fields that were asked for, whether they were there or not."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.read: set[str] = set()

    @override
    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, and remember its name."""
        self.read.add(name)
        return super().get(name, default)

    @override
    def __getitem__(self, name: str) -> Any:
        """Return a field, and remember its name."""
        self.read.add(name)
        return super().__getitem__(name)


@each_parser
async def test_the_fields_that_a_parser_reads_are_those_it_accepts(
    make_api: MakeApi, parser: Parser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field is read exactly if it is accepted, but for those that have no effect."""
    spec = dataclasses.replace(SPEC, name="all-MiniLM-L6-v2", max_tokens=64)
    api = make_api(ServedOptions(spec=spec))
    examples = parser.model.model_json_schema().get("examples", [])
    # The fake model has 8 dimensions, the model of the examples has 384.
    small = json.loads(json.dumps(examples).replace(": 128", ": 8"))
    read: set[str] = set()
    for path in parser.paths:
        for example in (*small, *parser.extra):
            body = TracedBody(example)

            async def parsed(*_: Any, body: TracedBody = body, **__: Any) -> TracedBody:
                return body

            monkeypatch.setattr(api_request, "read_json_object", parsed)
            monkeypatch.setattr(open_inference, "parse_bounded", parsed)
            name = "all-MiniLM-L6-v2"
            filled = path.format(deployment=name, model=name, rest=f"{name}/infer")
            await api.client.post(filled, json=example)
            read |= body.read
    accepted = parser.fields
    if accepted is None:
        accepted = frozenset({*parser.model.model_fields, *parser.undocumented})
    read -= parser.also_read
    assert read <= accepted, "read, and refused where unknown fields are"
    if parser.is_traced:
        assert read == accepted - parser.unread


async def test_no_body_of_a_dialect_is_left_out(api: Api) -> None:
    """Every JSON body of the OpenAPI document has its parser in the table above."""
    document = (await api.client.get("/openapi.json")).json()
    described = set()
    for path, operations in document["paths"].items():
        body = operations.get("post", {}).get("requestBody")
        if body is None or path in OTHERS:
            continue
        schema = body["content"]["application/json"]["schema"]
        for form in schema.get("anyOf", [schema]):
            described.add((path, form["title"], frozenset(form["properties"])))
    assert described == {
        (path, parser.model.__name__, frozenset(parser.model.model_fields))
        for parser in PARSERS
        for path in parser.paths
    }
