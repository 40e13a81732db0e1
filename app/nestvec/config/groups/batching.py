"""Settings of the engine: micro-batches, the threads that run them, and the queue before them."""

from pydantic import BaseModel, Field


class BatchingSettings(BaseModel):
    """How micro-batches are formed, which threads run them, and how much may wait."""

    max_batch_tokens: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Token budget of one micro-batch; 0: as tuned, else 256 or 512 by the CPU's L2 cache, and 8,192 or "
        "16,384 on a GPU.",
    )
    worker_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads that run batches; 0: as tuned, else one a CPU, or 3 for a GPU.",
    )
    intra_op_threads: int = Field(
        0, ge=0, le=1024, description="Threads inside one batch; 0: as tuned, else 1."
    )
    lone_threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="Threads for a text that is alone on an idle server, by a second session; 1: none apart; 0: as "
        "tuned, else up to 4, and 1 where the second session would hold a copy of more than 256 MB of weights (bf16, "
        "weight_storage fp16, a folder's own ONNX file).",
    )
    plain_attention_tokens: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Rows of several lengths up to this many tokens take plain attention instead of the contrib "
        "kernel; default: as tuned, else 128.",
    )
    front_threads: int = Field(
        0, ge=0, le=1024, description="Threads that tokenise and encode; 0: one a CPU."
    )
    max_front_characters: int = Field(
        20_000_000,
        ge=1,
        description="Characters that may wait to be tokenised, in each HTTP process; beyond it requests get 429.",
    )
    lookahead_items: int = Field(
        1024, ge=1, le=100_000, description="How many waiting inputs may be sorted by length."
    )
    max_batch_ms: int = Field(
        250,
        ge=1,
        description="Micro-batches are cut so as not to take longer, once their cost has been learned.",
    )
    max_queue_tokens: int = Field(
        0,
        ge=0,
        description="Tokens that may wait; beyond it requests get 429. 0: as memory allows, one for each 8 KiB, at "
        "most 500,000, and at least a quarter more than `max_tokens_per_request`.",
    )
    max_queue_wait_s: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="How long a request may wait for the work of others; one that would wait longer gets 429 at once, "
        "with the time when there will be a place for it.",
    )
