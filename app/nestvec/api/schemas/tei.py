"""Routes of Text Embeddings Inference in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import TeiError, errors_of, operation

STATUSES: Final = (400, 401, 404, 413, 422, 424, 429, 500, 503, 504)
Inputs = str | list[str | list[int]] | list[int]


class TokensRequest(BaseModel):
    """Inputs, and options on how they are cut."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["hello", "world"]}]})

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None
    prompt_name: str | None = None


class EmbedRequest(TokensRequest):
    """Inputs, and options on their vectors."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": "hello"}, {"inputs": ["hello", "world"], "dimensions": 128}]
        }
    )

    normalize: bool | None = None
    dimensions: int | None = Field(None, ge=1)


class SimilarityInputs(BaseModel):
    """A sentence, and others to compare it with."""

    source_sentence: str
    sentences: list[str]


class SimilarityRequest(BaseModel):
    """Sentences to compare."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"source_sentence": "a cat", "sentences": ["a dog", "a car"]}}]
        }
    )

    inputs: SimilarityInputs
    parameters: dict[str, Any] | None = None


class RerankRequest(BaseModel):
    """Body of `/rerank` in TEI's dialect, known by `texts`."""

    query: str
    texts: list[str]
    raw_scores: bool | None = None
    return_text: bool | None = None
    instruction: str | None = None
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None


class PredictRequest(BaseModel):
    """A text, a pair of texts, or a list of texts and pairs."""

    inputs: str | list[str] | list[list[str]]
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None


class TokenizeRequest(BaseModel):
    """Texts to tokenize."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "hello world"}]})

    inputs: str | list[str]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None


class DecodeRequest(BaseModel):
    """Token ids to decode."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [101, 7592, 102]}]})

    ids: list[int] | list[list[int]]
    skip_special_tokens: bool | None = None


class Token(BaseModel):
    """A token; `start` and `stop` count characters of the text."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(BaseModel):
    """The first served model, and the server's limits."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
    space: str
    quantization: dict[str, str]


def _tei(
    summary: str,
    answer: Any,  # noqa: ANN401 - whatever FastAPI takes as a response model
    **bodies: type[BaseModel],
) -> dict[str, Any]:
    return operation(summary, answer, bodies=bodies, errors=errors_of(TeiError, STATUSES))


EMBED_DOC: Final = _tei("Embed", list[list[float]], tei=EmbedRequest)
EMBED_ALL_DOC: Final = _tei("Embed every token", list[list[list[float]]], tei=EmbedRequest)
EMBED_SPARSE_DOC: Final = _tei("Embed sparsely", list[list[dict[str, Any]]], tei=TokensRequest)
SIMILARITY_DOC: Final = _tei("Compare sentences", list[float], tei=SimilarityRequest)
PREDICT_DOC: Final = _tei("Classify", list[Any], tei=PredictRequest)
ROOT_DOC: Final = _tei(
    "Embed or compare, as the body says",
    list[list[float]] | list[float],
    tei=EmbedRequest,
    similarity=SimilarityRequest,
)
TOKENIZE_DOC: Final = _tei("Tokenise", list[list[Token]], tei=TokenizeRequest)
DECODE_DOC: Final = _tei("Tokens to text", list[str], tei=DecodeRequest)
INFO_DOC: Final = operation(
    "Describe the server", Info, errors=errors_of(TeiError, (401, 404, 429))
)
