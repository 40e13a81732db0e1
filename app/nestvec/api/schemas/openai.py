"""The OpenAI dialect in the OpenAPI document."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nestvec.api.schemas.documented import (
    ErrorBody,
    InputObject,
    errors_of,
    operation,
    page_operation,
)

DtypeWord = Literal["float", "float32", "float16", "int8", "uint8", "binary", "ubinary"]


class InContextExample(BaseModel):
    """A query and the response to it."""

    query: str
    response: str


class LateChunking(BaseModel):
    """How documents are cut: by spans, or by a splitter."""

    spans: list[list[tuple[int, int]]] | list[tuple[int, int]] | None = Field(
        None, description="[start, stop) in Unicode characters, a list for each document."
    )
    splitter: Literal["sentences", "tokens", "markdown"] | None = None
    chunk_tokens: int | None = Field(None, ge=4)
    overlap_tokens: int | None = Field(None, ge=0, description="For the splitter `tokens`.")
    language: str | None = Field(None, description="ISO code, for sentences; default en.")


class ProcessorOptions(BaseModel):
    """What may be said of pictures."""

    max_num_patches: int | None = Field(
        None,
        ge=16,
        le=4096,
        description="Most patches of a picture, of models that take pictures in their own shape (SigLIP 2 NaFlex).",
    )


class EmbeddingsBody(BaseModel):
    """What `/v1/embeddings` and `/pooling` share."""

    input: str | list[str] | list[int] | list[list[int]] | list[InputObject] = Field(
        description="A text, texts, or token ids (one input) or arrays of token ids (several); or objects, for models "
        "of pictures."
    )
    model: str | None = Field(None, description="May be left out where one model is served.")
    dimensions: int | None = Field(
        None,
        ge=1,
        description="Keep so many leading values, and scale them to unit length; default: all.",
    )
    encoding_format: (
        Literal["float", "base64", "bytes", "bytes_only", "base64_int8", "base64_binary"] | None
    ) = Field(
        None,
        description="Numbers (default); base64 of little-endian values, float32 unless `output_dtype` says otherwise; "
        "vLLM's raw bytes; or Perplexity's base64 of int8 values or bits.",
    )
    user: str | None = Field(None, description="Ignored.")
    normalize: bool | None = Field(None, description="Scale to unit length; default true.")
    truncate: bool | Literal["error", "start", "end", "windows"] | None = Field(
        None,
        description="Too-long inputs: refuse, cut off the start or the end (true), or average overlapping windows; "
        "default: a server setting.",
    )
    prompt: str | None = Field(None, description="Literal text to put before each input.")
    prompt_name: str | None = Field(None, description="One of the model's own prompts.")
    instruction: str | None = Field(
        None,
        description="An instruction on what texts are for; it is put into the model's own template.",
    )
    examples: list[InContextExample] | None = Field(
        None, description="Worked examples, for models whose template has a place for them."
    )
    input_type: str | None = Field(
        None, description="query, document, …: the model's own prompt for that role, if it has one."
    )
    task: str | None = Field(None, description="The same, in Jina's words.")
    output_dtype: DtypeWord | None = Field(
        None, description="The dtype of the values; default float32."
    )
    late_chunking: bool | LateChunking | None = Field(
        None,
        description="True: inputs are consecutive chunks of one document and see each other. An object: inputs are "
        "documents, and this is how they are cut.",
    )
    groups: list[int] | None = Field(
        None,
        description="How many consecutive inputs make one vector together: the weighted sum of their unit vectors, at "
        "unit length. They add up to the number of inputs.",
    )
    weights: list[float] | None = Field(
        None,
        description="The weight of each input in its group; default 1. Negative ones lead away from a text.",
    )
    context: str | list[str] | None = Field(
        None,
        description="A text before each input, or one before all of them, which is read and left out of the pooling.",
    )
    layers: int | None = Field(
        None, ge=1, description="Run so many layers only, where the model has such an early exit."
    )
    map: str | None = Field(None, description="The map of the model's that vectors go through.")
    truncate_prompt_tokens: int | None = Field(
        None,
        ge=-1,
        description="vLLM: cut inputs beyond so many tokens; -1: beyond the model's own limit.",
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="vLLM: which side is cut off."
    )
    add_special_tokens: bool | None = Field(None, description="vLLM: default true.")
    use_activation: bool | None = Field(None, description="vLLM's word for `normalize`.")
    embed_dtype: Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"] | None = Field(
        None, description="vLLM: what base64 and bytes hold."
    )
    endianness: Literal["native", "little", "big"] | None = Field(
        None, description="vLLM: byte order of base64 and bytes."
    )
    mm_processor_kwargs: ProcessorOptions | None = Field(
        None, description="vLLM: options of the model's image processor."
    )


class EmbeddingsRequest(EmbeddingsBody):
    """Body of `POST /v1/embeddings`: OpenAI's fields, then our extensions. Unknown fields are ignored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "all-MiniLM-L6-v2", "input": ["hello", "world"]},
                {"model": "all-MiniLM-L6-v2", "input": "hello", "dimensions": 128},
                {
                    "model": "all-MiniLM-L6-v2",
                    "input": ["hello"],
                    "output_dtype": "int8",
                    "encoding_format": "base64",
                },
            ]
        }
    )

    output_types: list[Literal["dense", "sparse", "tokens"]] | None = Field(
        None,
        description="Kinds of output, all of one run, of those that the model has (`outputs` in `/v1/models`): a "
        "vector (default), weights of terms, vectors of tokens.",
    )
    return_offsets: bool | None = Field(
        None, description="Beside vectors of tokens, where each token lies in its text."
    )


class SparseEmbedding(BaseModel):
    """A text's terms: their ids in the model's vocabulary, rising, and their weights."""

    indices: list[int]
    values: list[float]


class Embedding(BaseModel):
    """One vector; that of a document's chunk has the chunk's span too, and one of several of an input its view.

    `output_types` may ask for other kinds.
    """

    object: Literal["embedding"]
    index: int
    view: str | None = Field(
        None,
        description="Which of the input's vectors it is, of a recipe that gives several views.",
    )
    embedding: list[float] | list[int] | str | None = None
    sparse_embedding: SparseEmbedding | None = None
    embeddings: list[list[float]] | list[list[int]] | str | None = Field(
        None, description="Vectors of tokens."
    )
    offsets: list[tuple[int, int] | None] | None = Field(
        None,
        description="Of each token's vector, [start, end) in Unicode characters of the text; null where it has none.",
    )
    document: int | None = None
    start: int | None = None
    end: int | None = None
    tokens: int | None = None


class LongInput(BaseModel):
    """What became of an input that was longer than the model takes."""

    index: int
    tokens_seen: int
    tokens_dropped: int
    windows: int
    at_least: bool | None = Field(None, description="More were dropped; the rest was not counted.")


class PromptTokensDetails(BaseModel):
    """What the tokens are made of: OpenAI's member, with one of ours."""

    instruction_tokens: int = Field(
        description="Those of the prompt, instruction or examples that the request asked for, without special tokens."
    )


class Usage(BaseModel):
    """Tokens in the model's own vocabulary, special tokens included, after truncation."""

    prompt_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(
        None, description="Absent where the request asked for no prompt."
    )
    long_inputs: list[LongInput] | None = Field(None, description="Absent where none was.")
    unknown_tokens: int | None = Field(
        None, description="Tokens that stand for what the vocabulary lacks; absent where none does."
    )


class EmbeddingsResponse(BaseModel):
    """Vectors in input order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    labels: list[str] | None = Field(
        None, description="What each value stands for, where `map` gives one for each label."
    )


class Dimensions(BaseModel):
    """The sizes in which a vector may be asked for."""

    native: int
    range: tuple[int, int]
    trained: list[int] = Field(description="Sizes the model was trained for (Matryoshka).")


class Pinned(BaseModel):
    """What a further name of a model stands for: prompt and dimensions, and the rest where it is set."""

    prompt_name: str | None
    dimensions: int | None
    layers: int | None = None
    map: str | None = None
    output_dtype: DtypeWord | None = None


class RecipePart(BaseModel):
    """One of the models that a recipe is made of, and how it is asked; what the recipe leaves open is absent."""

    model: str
    view: str | None = None
    when: str | None = Field(None, description="The condition of a route's rule.")
    weight: float | None = None
    dimensions: int | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    layers: int | None = None
    map: str | None = None


class Quantization(BaseModel):
    """The ranges of int8 and uint8 vectors, and where they come from."""

    id: str
    source: str


class Model(BaseModel):
    """A served model: OpenAI's four keys, then what a caller should know; null while it was never loaded."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    aliases: list[str]
    pinned: Pinned | None
    state: str = Field(description="ready, loading, unloaded, unloading or failed.")
    max_model_len: int | None
    dimensions: Dimensions | None
    outputs: list[str] | None = Field(description="Any of dense, tokens, sparse, labels.")
    labels: list[str] | None = Field(description="The labels of a classifier; a re-ranker has one.")
    pooling: str | None
    normalized: bool | None
    prompts: list[str] | None
    space: str | None = Field(
        description="Fingerprint of the embedding space; compare before mixing vectors."
    )
    quantization: Quantization | None
    architecture: str | None
    precision: str | None
    provider: str | None
    reproducibility: dict[str, float] | None = Field(
        description="What probe texts are held to at each start, against the stored float32 vectors: max_difference of "
        "a value; mean_cosine and min_cosine for coarser precisions."
    )
    license: str | None
    languages: list[str] | None = Field(
        description="BCP-47 tags of what the model was made for; empty where its card names none."
    )
    language_count: int | None
    parameters: int | None
    source: str | None
    reports: dict[str, dict[str, Any]] | None = Field(
        default=None, description="Reports about the model, by name; in the description of one."
    )
    combine: Literal["concat", "mean", "views", "route"] | None = Field(
        None, description="What a recipe makes of its parts; absent of single models."
    )
    parts: list[RecipePart] | None = Field(None, description="What a recipe is made of.")


class ModelQuality(BaseModel):
    """What was measured of a model."""

    object: Literal["model.quality"]
    model: str
    space: str | None
    quality: dict[str, Any] | None = Field(
        description="What `nestvec quality` found: sizes, dtypes, layers; null where it never ran."
    )
    reports: dict[str, dict[str, Any]] = Field(
        description="What `nestvec report` found, by the report's name."
    )


class ModelList(BaseModel):
    """The served models."""

    object: Literal["list"]
    data: list[Model]


DEPLOYMENT_DOC: Final = operation(
    "Create embeddings, Azure's path",
    EmbeddingsResponse,
    bodies={"azure": EmbeddingsRequest},
    gives_bytes=True,
)
MODELS_DOC: Final = operation("List models", ModelList, errors=errors_of(ErrorBody, (401, 503)))
MODEL_DOC: Final = operation(
    "Describe a model", Model, errors=errors_of(ErrorBody, (401, 404, 503))
)
MODEL_QUALITY_DOC: Final = operation(
    "What was measured of a model", ModelQuality, errors=errors_of(ErrorBody, (401, 404, 503))
)
MODEL_CARD_DOC: Final = page_operation(
    "A page about a model", ("html", "markdown"), errors=errors_of(ErrorBody, (400, 401, 404, 503))
)
