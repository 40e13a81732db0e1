"""The fields of sentence-transformers' own files.

Source: the `config_keys`, `__init__` and `_parse_model_config` of the library's models and modules, versions 5.7 and
6.2, and of PyLate 1.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from nestvec.model_store.folder.claims import FieldTable, Refused
from nestvec.model_store.folder.pooling_settings import POOLING_FLAGS, SIZES
from nestvec.model_store.folder.transformer_settings import (
    ARGUMENT_FIELDS,
    PROCESSING,
    TRANSFORMER_WAY_OUT,
    UNREAD_FIELDS,
)
from nestvec.model_store.heads.dense import FLAGS, NAME_FIELDS
from nestvec.model_store.heads.late import PYLATE_FIELDS
from nestvec.model_store.heads.multi_vector import LENGTH_FIELDS

TRANSFORMER_TABLE: Final = FieldTable(
    honoured=frozenset(
        {
            *("max_seq_length", "do_lower_case", "transformer_task", "modality_config"),
            *("module_output_name", *ARGUMENT_FIELDS),
        }
    ),
    without_effect={
        "unpad_inputs": "how a model is computed, not what",
        "model_type": "written by some versions; no version reads it",
    },
    refused={
        name: Refused("it is not supported", (None, False, "", 0, {}, [])) for name in UNREAD_FIELDS
    },
    way_out=TRANSFORMER_WAY_OUT,
)
# Where token vectors are compared one by one, `MultiVectorMask` says which.
MULTI_VECTOR_TABLE: Final = replace(
    TRANSFORMER_TABLE,
    honoured=TRANSFORMER_TABLE.honoured | LENGTH_FIELDS,
    refused={
        name: refused
        for name, refused in TRANSFORMER_TABLE.refused.items()
        if name not in LENGTH_FIELDS
    },
)
# Of models that read messages, whose reader looks at what is said of these.
MESSAGE_TABLE: Final = replace(
    TRANSFORMER_TABLE,
    honoured=TRANSFORMER_TABLE.honoured | {PROCESSING},
    refused={
        name: refused for name, refused in TRANSFORMER_TABLE.refused.items() if name != PROCESSING
    },
)
MODEL_TABLE: Final = FieldTable(
    honoured=frozenset(
        {
            *("prompts", "default_prompt_name", "activation_fn"),
            # PyLate's.
            *PYLATE_FIELDS,
        }
    ),
    without_effect={
        "__version__": "which versions wrote the folder",
        "requirements": "which versions the library needs",
        "model_type": "which of the library's classes wrote it: the module chain says it",
        "similarity_fn_name": "how vectors are compared, by whoever compares them",
        "keep_in_fp32_modules": "how a model is computed, not what",
    },
    refused={
        "truncate_dim": Refused("vectors would be cut; a request's `dimensions` does it"),
        "max_active_dims": Refused("only so many terms of a text would be kept"),
    },
)
ROUTER_TABLE: Final = FieldTable(honoured=frozenset({"types", "structure", "parameters"}))
MODULE_TABLES: Final[Mapping[str, FieldTable]] = {
    "Pooling": FieldTable(
        honoured=frozenset({"pooling_mode", "include_prompt", *POOLING_FLAGS, *SIZES})
    ),
    "Dense": FieldTable(
        honoured=frozenset(
            {"in_features", "out_features", "activation_function", *FLAGS, *NAME_FIELDS}
        )
    ),
    "Normalize": FieldTable(honoured=frozenset(NAME_FIELDS)),
    "TanhQuantizer": FieldTable(),  # it has no file: its path is the model's folder
    "LayerNorm": FieldTable(
        honoured=frozenset(NAME_FIELDS),
        without_effect={"dimension": "the weights themselves say it"},
    ),
    "SpladePooling": FieldTable(
        honoured=frozenset({"pooling_strategy", "activation_function"}),
        without_effect={
            "chunk_size": "how it is computed, not what",
            **dict.fromkeys(SIZES, "the vocabulary says it"),
        },
    ),
    "LogitScore": FieldTable(
        honoured=frozenset({"true_token_id", "false_token_id", "module_input_name"})
    ),
    "WeightedLayerPooling": FieldTable(
        honoured=frozenset({"layer_start"}),
        without_effect=dict.fromkeys(
            ("num_hidden_layers", *SIZES), "the weights and the encoder say it"
        ),
    ),
    "SparseAutoEncoder": FieldTable(
        honoured=frozenset({"hidden_dim", "k", "normalize"}),
        without_effect={
            "input_dim": "the weights themselves say it",
            **dict.fromkeys(("k_aux", "dead_threshold"), "says something of training only"),
        },
    ),
    "SparseStaticEmbedding": FieldTable(
        without_effect={"frozen": "says something of training only"},
        refused={"path": Refused("weights would be read from elsewhere")},
    ),
    "MultiVectorMask": FieldTable(
        honoured=frozenset({"skiplist_words", "skiplist_tasks"}),
        refused={"keep_only_token_ids": Refused("other tokens would be left out", ([],))},
    ),
    "HierarchicalTokenPooling": FieldTable(
        honoured=frozenset({"pool_factor", "num_protected_tokens", "normalize_embeddings", "tasks"})
    ),
}
