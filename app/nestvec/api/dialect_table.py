"""The dialects in one table: the defaults of each, and how it spells an error.

Source: each vendor's API reference, named in the dialect's file, and what its clients send and need
(docs/wire-behaviour.md). A new dialect is a row here, a row in `dispatch.py` and a file of its own in `dialects/`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nestvec.api.error_bodies import (
    Envelope,
    FieldNames,
    gemini_error,
    ollama_error,
    string_error,
    superset_error,
    tei_error,
)
from nestvec.engine.types import Truncation
from nestvec.errors import (
    BackendError,
    BodyFormatError,
    BodyTimeoutError,
    BodyTooLargeError,
    DegenerateVectorError,
    EmptyInputError,
    InputError,
    NestvecError,
    NotReadyError,
    QueueFullError,
    UnsupportedError,
)

Statuses = tuple[tuple[type[NestvecError], int], ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One vendor's API: its defaults, the names of its fields, and its errors.

    Attributes:
        name: Stands in metrics, logs and the tags of the OpenAPI document.
        title: The name for people.
        envelope: Builds the body of an error.
        default_truncation: What is done with too-long inputs where the request does not say; None: what the
            server's settings say.
        max_inputs: The vendor's limit on the inputs of a request; None: only the server's.
        role_fields: The fields that say what the texts are for, and so which prompt goes before them.
        base64_keeps_dtype: Whether base64 holds the dtype that was asked for; else it is always float32.
        field_names: What it calls fields, by the name that they have in the OpenAI dialect.
        statuses: Statuses that differ from the common ones (`error_handlers.STATUSES`); the first match wins.
    """

    name: str
    title: str
    envelope: Envelope = superset_error
    default_truncation: Truncation | None = None
    max_inputs: int | None = None
    role_fields: tuple[str, ...] = ()
    base64_keeps_dtype: bool = False
    field_names: FieldNames = field(default_factory=dict)
    statuses: Statuses = ()


def _tei_statuses(validation: int) -> Statuses:
    return (
        (BodyFormatError, 400),
        (EmptyInputError, 400),
        (BodyTimeoutError, 408),
        (BodyTooLargeError, 413),
        (UnsupportedError, 424),
        (InputError, validation),
        (BackendError, 424),
        (DegenerateVectorError, 424),
        (NotReadyError, 429),
    )


OPENAI: Final = Dialect(
    "openai",
    "OpenAI, Azure, vLLM",
    role_fields=("input_type", "task"),
    base64_keeps_dtype=True,
    field_names={"max_tokens": "truncate_prompt_tokens"},
)
TEI: Final = Dialect(
    "tei",
    "Text Embeddings Inference",
    envelope=tei_error,
    default_truncation=Truncation.END,
    role_fields=("prompt_name",),
    field_names={"input": "inputs"},
    statuses=_tei_statuses(422),
)
COHERE: Final = Dialect(
    "cohere",
    "Cohere",
    default_truncation=Truncation.END,
    max_inputs=96,
    role_fields=("input_type",),
    field_names={
        "input": "texts",
        "dimensions": "output_dimension",
        "output_dtype": "embedding_types",
    },
)
JINA: Final = Dialect(
    "jina",
    "Jina",
    max_inputs=2048,
    role_fields=("task",),
    field_names={"output_dtype": "embedding_type", "normalize": "normalized"},
)
VOYAGE: Final = Dialect(
    "voyage",
    "Voyage",
    default_truncation=Truncation.END,
    max_inputs=1000,
    role_fields=("input_type",),
    base64_keeps_dtype=True,
    field_names={"dimensions": "output_dimension", "truncate": "truncation"},
)
PERPLEXITY: Final = Dialect(
    "perplexity",
    "Perplexity",
    default_truncation=Truncation.ERROR,
    max_inputs=512,
    base64_keeps_dtype=True,
    field_names={"output_dtype": "encoding_format"},
)
OLLAMA: Final = Dialect(
    "ollama",
    "Ollama",
    envelope=ollama_error,
    default_truncation=Truncation.END,
    field_names={"max_tokens": "options.num_ctx"},
    statuses=((QueueFullError, 503),),
)
OPEN_INFERENCE: Final = Dialect(
    "open-inference",
    "Open Inference Protocol v2",
    envelope=string_error,
    role_fields=("input_type", "prompt_name"),
    base64_keeps_dtype=True,
    field_names={"input": "text", "output_dtype": "embedding_type"},
)
GEMINI: Final = Dialect(
    "gemini",
    "Gemini",
    envelope=gemini_error,
    default_truncation=Truncation.END,
    max_inputs=100,
    role_fields=("taskType",),
    field_names={
        "input": "content",
        "dimensions": "outputDimensionality",
        "truncate": "autoTruncate",
    },
)
# Through version 1.8, validation failed with 413, and nothing was cut by default.
TEI_1_8: Final = dataclasses.replace(
    TEI, default_truncation=Truncation.ERROR, statuses=_tei_statuses(413)
)

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (OPENAI, TEI, COHERE, JINA, VOYAGE, PERPLEXITY, OLLAMA, OPEN_INFERENCE, GEMINI)
}
# Sections of `/docs`, in order.
OPENAPI_TAGS: Final = [
    *({"name": dialect.name, "description": dialect.title} for dialect in DIALECTS.values()),
    {"name": "files", "description": "OpenAI's files"},
    {"name": "batches", "description": "OpenAI's batches"},
    {"name": "reports", "description": "Reports on texts of your own"},
    {"name": "operations", "description": "Health, metrics"},
]
# Which dialect's errors answer paths that no route serves.
DIALECT_OF_PREFIX: Final[tuple[tuple[str, Dialect], ...]] = (
    ("/api/", OLLAMA),
    ("/v1beta/", GEMINI),
    ("/v2/models", OPEN_INFERENCE),
    ("/v2/health", OPEN_INFERENCE),
)


def dialect_of_path(path: str) -> Dialect:
    """Return the dialect whose errors answer a path that no route serves."""
    return next((dialect for start, dialect in DIALECT_OF_PREFIX if path.startswith(start)), OPENAI)
