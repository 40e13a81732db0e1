"""sentence-transformers' settings of its Transformer module: the `sentence_*_config.json` beside an encoder.

Source: `Transformer.load_config` and `Transformer.__init__` of sentence-transformers 5.7 and 6.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nestvec.errors import FormatError
from nestvec.export.two_towers.config import TWO_TOWER_TYPES
from nestvec.export.vision_language.config import VISION_LANGUAGE_TYPES
from nestvec.model_store.heads.multi_vector import LENGTH_FIELDS
from nestvec.model_store.sources.file_names import SETTINGS_FILES, TOKENIZER_CONFIG_FILE
from nestvec.system.json_files import read_json

# Tasks of which the states (or a classifier's scores) are those that are served.
TASKS: Final = ("feature-extraction", "sequence-classification", "fill-mask")
# What a re-ranker may be that reads pairs in a template of its own, and what its states are called then.
PAIR_TASK: Final = "text-generation"
PAIR_OUTPUT: Final = "causal_logits"
MESSAGE_FORMATS: Final = (None, "auto", "flat", "structured")
# transformers writes 1e30 as `model_max_length` for "no limit".
UNLIMITED_TOKENS: Final = 1e9
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
PROCESSING: Final = "processing_kwargs"
UNREAD_FIELDS: Final = (PROCESSING, *sorted(LENGTH_FIELDS), "tokenizer_name_or_path")
# What they may say of models that read messages, which end with the beginning of an answer.
MESSAGE_ARGUMENTS: Final = ({"chat_template": {"add_generation_prompt": True}},)
TRANSFORMER_WAY_OUT: Final = "a copy of the folder without this field is served as a plain encoder"
# What a model's states are called, by its class and by the module; any other is not what is served.
METHODS: Final = (None, "forward")
METHOD_OUTPUTS: Final = (None, "last_hidden_state", "logits")
MODULE_OUTPUTS: Final = (None, "token_embeddings", "scores")
# The same of models of two towers, which give vectors.
TOWER_METHODS: Final = {"text": "get_text_features", "image": "get_image_features"}
TOWER_OUTPUTS: Final = (None, "pooler_output")
TOWER_MODULE_OUTPUTS: Final = (None, "sentence_embedding")


@dataclass(frozen=True, slots=True)
class TransformerSettings:
    """What such a file says.

    Attributes:
        path: The file; the usual one's path where there is none.
        values: Its content; empty where there is none.
    """

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)


def read_transformer_settings(
    encoder: Path, architecture: str = "", *, scores_pairs: bool = False
) -> TransformerSettings:
    """Read the settings beside an encoder, as the library does: of its seven names, the first that is not empty.

    Args:
        encoder: The encoder's folder.
        architecture: As `check_transformer_settings` takes it.
        scores_pairs: Likewise.

    Raises:
        FormatError: The file cannot be read, or a field that changes vectors says what is not served.
    """
    settings = find_transformer_settings(encoder)
    if settings.values:
        check_transformer_settings(settings, architecture, scores_pairs=scores_pairs)
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


def check_transformer_settings(
    settings: TransformerSettings, architecture: str = "", *, scores_pairs: bool = False
) -> None:
    """Check what the settings say.

    Args:
        settings: The settings.
        architecture: The family's name: of models of two towers the module gives vectors.
        scores_pairs: Whether they are a re-ranker's, whose pairs may go through a chat template.

    Raises:
        FormatError: A field that changes vectors says what is not served.
    """
    values = settings.values
    task = values.get("transformer_task", TASKS[0])
    if task not in TASKS and not (scores_pairs and task == PAIR_TASK):
        raise _refusal(settings, "transformer_task", f"{task!r} is none of {', '.join(TASKS)}")
    if architecture in TWO_TOWER_TYPES:
        _check_outputs_of_towers(settings)
    elif architecture in VISION_LANGUAGE_TYPES:
        _check_messages(settings)
    else:
        _check_outputs(settings, scores_pairs=scores_pairs)
    for name in ARGUMENT_FIELDS:
        arguments = values.get(name) or {}
        if not isinstance(arguments, dict):
            raise _refusal(settings, name, "must be an object")
        if unread := sorted(set(arguments) - HARMLESS_ARGUMENTS):
            raise _refusal(settings, name, f"'{unread[0]}' is not supported")


def _check_outputs_of_towers(settings: TransformerSettings) -> None:
    """Check that vectors are those of the towers.

    Raises:
        FormatError: They are others.
    """
    modalities = settings.values.get("modality_config", {})
    if not isinstance(modalities, dict):
        raise _refusal(settings, "modality_config", "must be an object")
    for name, modality in modalities.items():
        method = modality.get("method") if isinstance(modality, dict) else ...
        output = modality.get("method_output_name") if isinstance(modality, dict) else ...
        if method != TOWER_METHODS.get(name) or output not in TOWER_OUTPUTS:
            raise _refusal(settings, "modality_config", f"{name[:20]!r} would get another output")
    if settings.values.get("module_output_name") not in TOWER_MODULE_OUTPUTS:
        raise _refusal(settings, "module_output_name", "the module would give no vectors")


def _check_messages(settings: TransformerSettings) -> None:
    """Check that texts and pictures go through the chat template, and that states are those of tokens.

    Raises:
        FormatError: They do not, or are others.
    """
    values = settings.values
    modalities = values.get("modality_config")
    if modalities is not None:
        if not isinstance(modalities, dict) or not speaks_in_messages(settings):
            raise _refusal(settings, "modality_config", "inputs would not go through messages")
        for name, modality in modalities.items():
            parts = modality if isinstance(modality, dict) else {"method": ...}
            outputs = parts.get("method") in METHODS, parts.get("method_output_name")
            if not outputs[0] or outputs[1] not in METHOD_OUTPUTS:
                raise _refusal(
                    settings, "modality_config", f"{name[:20]!r} would get another output"
                )
    if values.get("module_output_name") not in MODULE_OUTPUTS:
        raise _refusal(settings, "module_output_name", "the module would give no tokens' states")
    if values.get(PROCESSING) not in (None, {}, *MESSAGE_ARGUMENTS):
        raise _refusal(settings, PROCESSING, "only 'add_generation_prompt' is known")


def _check_outputs(settings: TransformerSettings, *, scores_pairs: bool) -> None:
    """Check that states are those of tokens.

    Raises:
        FormatError: They are others.
    """
    values = settings.values
    modalities = values.get("modality_config", {"text": {}})
    if scores_pairs and speaks_in_messages(settings):
        modalities = {key: value for key, value in modalities.items() if key != "message"}
    if not isinstance(modalities, dict) or "text" not in modalities or "message" in modalities:
        raise _refusal(
            settings, "modality_config", "texts would go through a chat template, which is not read"
        )
    text = modalities["text"] if isinstance(modalities["text"], dict) else {"method": ...}
    if text.get("method") not in METHODS or text.get("method_output_name") not in METHOD_OUTPUTS:
        raise _refusal(settings, "modality_config", "texts would get another output of the model")
    outputs = (*MODULE_OUTPUTS, PAIR_OUTPUT) if scores_pairs else MODULE_OUTPUTS
    if values.get("module_output_name") not in outputs:
        raise _refusal(
            settings,
            "module_output_name",
            "the module would give something else than tokens' states",
        )


def read_max_tokens(
    folder: Path,
    max_positions: int | None,
    overrides: Mapping[str, Any],
    settings: TransformerSettings,
) -> int:
    """Return the smallest limit that the files say: never beyond the position table.

    Args:
        folder: The encoder's folder.
        max_positions: Rows of its position table; None where it has none.
        overrides: Of its card.
        settings: Of the Transformer module.

    Raises:
        FormatError: None of the files says one.
    """
    limits: list[int] = []
    if "max_tokens" in overrides:
        limits.append(int(overrides["max_tokens"]))
    length = settings.values.get("max_seq_length")
    if not limits and length is not None:
        if not isinstance(length, int) or isinstance(length, bool) or length <= 0:
            raise FormatError(f"{settings.path}: max_seq_length is missing or of the wrong type")
        # Where queries or documents have a length of their own, the library takes that instead.
        lengths = (settings.values.get(name) for name in ("query_length", "document_length"))
        limits.append(max(length, *(each for each in lengths if isinstance(each, int)), 0))
    if not limits:
        tokenizer = folder / TOKENIZER_CONFIG_FILE
        if tokenizer.is_file():
            fields = read_json(tokenizer)
            length = fields.get("model_max_length", fields.get("max_len"))
            if isinstance(length, int | float) and 0 < length < UNLIMITED_TOKENS:
                limits.append(int(length))
    if max_positions is not None:
        limits.append(max_positions)
    if not limits:
        raise FormatError(
            f"{folder}: max tokens unknown: neither {SETTINGS_FILES[0]} (max_seq_length), "
            "tokenizer_config.json (model_max_length) nor config.json (max_position_embeddings) says"
        )
    return min(limits)


def speaks_in_messages(settings: TransformerSettings) -> bool | None:
    """Whether pairs go through a chat template, as messages of texts; None where the settings do not say."""
    modalities = settings.values.get("modality_config")
    if modalities is None:
        return None
    message = modalities.get("message") if isinstance(modalities, dict) else None
    if not isinstance(message, dict) or message.get("format") not in MESSAGE_FORMATS:
        return False
    method, output = message.get("method"), message.get("method_output_name")
    return method in METHODS and output in METHOD_OUTPUTS


def _refusal(settings: TransformerSettings, name: str, reason: str) -> FormatError:
    return FormatError(f"{settings.path}: {name}: {reason}; {TRANSFORMER_WAY_OUT}")
