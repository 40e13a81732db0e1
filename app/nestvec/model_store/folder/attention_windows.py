"""Which layers of a decoder have sliding windows, where transformers' configuration classes say it beside the file.

Source: `MistralConfig`, `Qwen2Config`, `Qwen3Config` and `LlamaConfig` of transformers 4.57.6 and 5.24.0.
"""

from collections.abc import Mapping
from typing import Any, Final

WINDOW: Final = "sliding_window"
USES_WINDOW: Final = "use_sliding_window"
FULL_LAYERS: Final = "max_window_layers"
# Families whose class has no windows, whatever config.json says.
WITHOUT_WINDOWS: Final = ("llama", "llama_bidirec", "eurobert", "olmo2")
# Families in which windows are off unless the file says so, and begin behind the first layers.
BY_LAYER: Final = ("qwen2", "qwen3", "bidirectional_pplx_qwen3")
MISTRAL: Final = "mistral"
MISTRAL_WINDOW: Final = 4096
DEFAULT_FULL_LAYERS: Final = 28


def with_windows(config: Mapping[str, Any], architecture: str) -> Mapping[str, Any]:
    """Return a config.json that says what its class adds to it about windows; itself where that changes no vector.

    Args:
        config: Content of config.json; values of a wrong type are left to the family's reader.
        architecture: A key of `ARCHITECTURES`.
    """
    default = MISTRAL_WINDOW if architecture == MISTRAL else None
    window, limit = config.get(WINDOW, default), config.get("max_position_embeddings")
    if not isinstance(window, int) or not isinstance(limit, int) or window >= limit:
        return config
    if architecture in WITHOUT_WINDOWS:
        return {**config, WINDOW: None}
    if architecture == MISTRAL:
        says_off = config.get(USES_WINDOW) is False  # which its class does not read
        return {**config, WINDOW: window} | ({USES_WINDOW: True} if says_off else {})
    return {**config, **_by_layer(config)} if architecture in BY_LAYER else config


def _by_layer(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What Qwen's classes add: windows are off by default, and begin behind the first layers."""
    if config.get("layer_types") is not None:
        return {}
    if USES_WINDOW not in config:
        return {USES_WINDOW: False}
    full, layers = config.get(FULL_LAYERS, DEFAULT_FULL_LAYERS), config.get("num_hidden_layers")
    if not isinstance(full, int) or not isinstance(layers, int):
        return {}
    if not config[USES_WINDOW] or full <= 0:
        return {}
    kinds = ["full_attention"] * min(full, layers)
    return {"layer_types": kinds + ["sliding_attention"] * (layers - len(kinds))}
