"""sentence-transformers' settings of its Transformer module: the `sentence_*_config.json` beside an encoder.

Source: `Transformer.load_config` and `Transformer.__init__` of sentence-transformers 5.7 and 6.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.model_store.sources.file_names import SETTINGS_FILES
from nestvec.system.json_files import read_json

# Tasks of which the states (or a classifier's scores) are those that are served.
TASKS: Final = ("feature-extraction", "sequence-classification", "fill-mask")
# Arguments of loading that say where and how a model is computed, not what.
HARMLESS_ARGUMENTS: Final = frozenset(
    {
        *("attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype"),
        *("add_pooling_layer", "revision", "trust_remote_code", "use_cache", "use_safetensors"),
        *("use_fast", "use_memory_efficient_attention", "unpad_inputs", "use_flash_attn"),
    }
)
ARGUMENT_FIELDS: Final = (
    *("model_args", "model_kwargs", "config_args", "config_kwargs"),
    *("tokenizer_args", "processor_kwargs"),
)
# Fields that change vectors where they say anything: `field_claims` refuses them.
UNREAD_FIELDS: Final = (
    *("processing_kwargs", "query_length", "document_length", "query_expansion"),
    "tokenizer_name_or_path",
)
TRANSFORMER_WAY_OUT: Final = "a copy of the folder without this field is served as a plain encoder"
# What a model's states are called, by its class and by the module; any other is not what is served.
METHODS: Final = (None, "forward")
METHOD_OUTPUTS: Final = (None, "last_hidden_state", "logits")
MODULE_OUTPUTS: Final = (None, "token_embeddings", "scores")


@dataclass(frozen=True, slots=True)
class TransformerSettings:
    """What such a file says.

    Attributes:
        path: The file; the usual one's path where there is none.
        values: Its content; empty where there is none.
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)


def read_transformer_settings(encoder: Path) -> TransformerSettings:
    """Read the settings beside an encoder, as the library does: of its seven names, the first that is not empty.

    Raises:
        FormatError: The file cannot be read, or a field that changes vectors says what is not served.
    """
    settings = find_transformer_settings(encoder)
    if settings.values:
        check_transformer_settings(settings)
    return settings


def find_transformer_settings(encoder: Path) -> TransformerSettings:
    """Find the settings beside an encoder, whatever they say.

    Raises:
        FormatError: The file cannot be read.
    """
    for name in SETTINGS_FILES:
        path = encoder / name
        values = read_json(path) if path.is_file() else {}
        if values:
            return TransformerSettings(path, values)
    return TransformerSettings(encoder / SETTINGS_FILES[0])


def check_transformer_settings(settings: TransformerSettings) -> None:
    """Check what the settings say.

    Raises:
        FormatError: A field that changes vectors says what is not served.
    """
    values = settings.values
    task = values.get("transformer_task", TASKS[0])
    if task not in TASKS:
        raise _refusal(settings, "transformer_task", f"{task!r} is none of {', '.join(TASKS)}")
    modalities = values.get("modality_config", {"text": {}})
    if not isinstance(modalities, dict) or "text" not in modalities or "message" in modalities:
        raise _refusal(
            settings, "modality_config", "texts would go through a chat template, which is not read"
        )
    text = modalities["text"] if isinstance(modalities["text"], dict) else {"method": ...}
    if text.get("method") not in METHODS or text.get("method_output_name") not in METHOD_OUTPUTS:
        raise _refusal(settings, "modality_config", "texts would get another output of the model")
    if values.get("module_output_name") not in MODULE_OUTPUTS:
        raise _refusal(
            settings,
            "module_output_name",
            "the module would give something else than tokens' states",
        )
    for name in ARGUMENT_FIELDS:
        arguments = values.get(name) or {}
        if not isinstance(arguments, dict):
            raise _refusal(settings, name, "must be an object")
        if unread := sorted(set(arguments) - HARMLESS_ARGUMENTS):
            raise _refusal(settings, name, f"'{unread[0]}' is not supported")


def _refusal(settings: TransformerSettings, name: str, reason: str) -> FormatError:
    return FormatError(f"{settings.path}: {name}: {reason}; {TRANSFORMER_WAY_OUT}")
