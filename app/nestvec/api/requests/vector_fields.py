"""The fields of all dialects in two tables: those that change vectors or scores, and those that do not.

A field of a dialect's own table (`FIELDS` in `api/dialects` and `api/routes`) stands in one of the two; a test takes
the union of all of them. Beside them stand words of vendors' APIs that no dialect here reads. Sources: the vendors'
API references, and what clients send (docs/wire-behaviour.md).
"""

from collections.abc import Mapping
from typing import Final

# Fields of our dialects that change vectors or scores, each with the values that change nothing.
OWN_VECTOR_FIELDS: Final[Mapping[str, tuple[object, ...]]] = {
    "dimensions": (),
    "output_dimension": (),
    "output_dtype": ("float", "float32"),
    "embedding_type": ("float",),
    "embedding_types": (["float"], []),
    "encoding_type": ("float", "base64"),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
    "normalize": (True,),
    "normalized": (True,),
    "use_activation": (True,),
    "add_special_tokens": (True,),
    # What cuts unasked does so at the end; what does not, refuses, and gives no other vector.
    "truncate": (True, "end", "END"),
    "truncation": (True,),
    "truncation_side": ("right",),
    "truncation_direction": ("right", "Right"),
    "truncate_prompt_tokens": (),
    "max_tokens": (),
    "max_tokens_per_doc": (),
    "num_ctx": (),
    "rank_fields": ([],),
    "raw_scores": (False,),
    "late_chunking": (False,),
    "enable_auto_chunking": (False,),
    "groups": ([],),
    "weights": ([], {}),
    "context": ("", []),
    "metric": ("cosine",),
    "output_types": (["dense"], []),
    "return_multivector": (False,),
    "pool_factor": (1,),
    "prompt": (),
    "prompt_name": (),
    "instruction": (),
    "lexical_weight": (0,),
    "fusion": ("weighted",),
    "examples": ([],),
    "input_type": (),
    "task": (),
    "layers": (),
    "map": (),
    "images": ([],),
    "mm_processor_kwargs": ({},),
    "autoTruncate": (True,),
    "outputDimensionality": (),
    "taskType": ("TASK_TYPE_UNSPECIFIED",),
}
# The same of vendors' words that no dialect here reads.
VENDORS_VECTOR_FIELDS: Final[Mapping[str, tuple[object, ...]]] = {
    # sentence-transformers
    "normalize_embeddings": (True,),
    "truncate_dim": (),
    "output_value": ("sentence_embedding",),
    "precision": ("float32",),
    "prompts": ({}, []),
    # Gemini
    "output_dimensionality": (),
    "task_type": (),
    # vLLM, infinity, NVIDIA, Bedrock, watsonx, Nomic, llama.cpp
    "matryoshka_dim": (),
    "modality": ("text",),
    "embedding_config": ({},),
    "truncate_input_tokens": (),
    "dimensionality": (),
    "max_tokens_per_text": (),
    "long_text_mode": ("truncate",),
    "embd_normalize": (2,),
    # Ollama's options until its version 0.3
    "rope_frequency_base": (),
    "rope_frequency_scale": (),
    # images and the like, however they are called
    "image": ("", []),
    "image_url": ("", []),
    "audio": ("", []),
    "video": ("", []),
    "videos": ([],),
    # of papers: expansions of queries
    "expansions": ([],),
}
# Objects that hold options; what is free for callers to fill, such as `metadata`, is none.
OPTION_OBJECTS: Final = ("options", "parameters", "extra_body")
VECTOR_FIELDS: Final = {**OWN_VECTOR_FIELDS, **VENDORS_VECTOR_FIELDS}

# Fields of our dialects that change neither vectors nor scores where they are ignored: what is embedded (a request
# without it is refused), how the answer looks, and what an operator or scheduler might use.
OWN_OTHER_FIELDS: Final = frozenset(
    {
        *("input", "inputs", "texts", "messages", "query", "documents", "vectors", "name"),
        *("text_1", "text_2", "data_1", "data_2", "queries", "items", "pairs", "left", "right"),
        *(
            "return_offsets",
            "model",
            "user",
            "encoding_format",
            "output_encoding",
            "request_id",
            "priority",
            "padding",
            "explain",
        ),
        *("top_n", "top_k", "return_documents", "return_text", "keep_alive"),
        # Options of Ollama's and of Hugging Face's; the latter's are no one's vectors, and clients send both empty.
        *("options", "parameters"),
        *("timeout", "binary_data_output", "id", "outputs"),
        *("source_sentence", "sentences"),
        *("content", "requests", "title"),
        # Labels to choose from, and how: where nothing is chosen, there is nothing to change.
        *("labels", "template", "multi_label", "alpha"),
        # They say how `enable_auto_chunking` cuts, and mean nothing without it.
        *("chunk_size", "chunk_overlap"),
        # How documents are cut where no vector is given.
        *("splitter", "chunk_tokens", "overlap_tokens", "language"),
    }
)
# Vendors' words without effect, some of them an edit away from a field of ours: none of them is a slip.
VENDORS_OTHER_FIELDS: Final = frozenset(
    {
        # OpenAI
        *("stream", "metadata", "store", "n", "top_p", "temperature", "service_tier"),
        *("safety_identifier", "prompt_cache_key", "extra_body", "extra_headers", "modalities"),
        # vLLM, infinity
        *(
            "data",
            "text",
            "softmax",
            "activation",
            "cache_salt",
            "chat_template",
            "add_generation_prompt",
        ),
        *("continue_final_message", "additional_data", "media_io_kwargs"),
        *("chat_template_kwargs", "kv_transfer_params", "return_token_ids"),
        # TEI, Hugging Face, sentence-transformers
        *("ids", "batch_size", "provider", "use_cache", "wait_for_model"),
        *("show_progress_bar", "convert_to_numpy", "convert_to_tensor"),
        # Cohere, Jina, Voyage
        *(
            "max_chunks_per_doc",
            "input_text",
            "document",
            "output_type",
            "type",
        ),
        # Ollama
        *("raw", "format", "system", "think", "suffix", "tools", "message"),
        *("num_keep", "num_predict", "num_batch", "num_gpu", "main_gpu", "num_thread"),
        # Open Inference Protocol
        *("output", "sequence_id", "sequence_start", "sequence_end", "headers"),
        *("binary_data", "binary_data_size", "shared_memory_region", "shared_memory_byte_size"),
    }
)
VENDORS_WORDS: Final = frozenset(VECTOR_FIELDS) | OWN_OTHER_FIELDS | VENDORS_OTHER_FIELDS


def changes_nothing(name: str, value: object) -> bool:
    """Return whether a field that changes vectors has a value that does not."""
    if name == "modality" and isinstance(value, list):
        return all(item == "text" for item in value)
    # JSON's true is no 1.
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in VECTOR_FIELDS[name]
    )
