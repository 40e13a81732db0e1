"""How a model pools: sentence-transformers' `1_Pooling/config.json` in its old and its new form, or a card.

Source: `Pooling.load_config` and `Pooling.__init__` of sentence-transformers 5.7 and 6.2.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nestvec.engine.vectors.pooling import JOINT, pooling_modes
from nestvec.errors import FormatError
from nestvec.model_store.folder.modules import SPLADE, Module
from nestvec.model_store.heads.base import FIRST_LAST
from nestvec.system.json_files import read_json

# Both spellings of sentence-transformers' pooling config to our names.
POOLING_NAMES: Final[Mapping[str, str]] = {
    "cls": "cls",
    "mean": "mean",
    "max": "max",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
# The old form; where several are true, vectors are concatenated in this order, whatever the file's.
POOLING_FLAGS: Final[Mapping[str, str]] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
FLAG_PREFIX: Final = "pooling_mode_"
# Poolings of ours that the library has not; each stands alone.
OWN_POOLINGS: Final = (SPLADE, FIRST_LAST)
SIZES: Final = ("embedding_dimension", "word_embedding_dimension")
POOLS_PROMPT: Final = "pools_prompt"  # a card's word for `include_prompt`
WAY_OUT: Final = "a card's overrides.pooling stands for the file"


def read_pooling(
    folder: Path, modules: Sequence[Module], overrides: Mapping[str, Any]
) -> tuple[str | None, bool]:
    """Return the pooling, None where nothing says one, and whether prompts take part in it.

    Args:
        folder: The model's folder.
        modules: Its module chain; where it has one, only that says where a pooling's settings are.
        overrides: Of its card.

    Raises:
        FormatError: The settings cannot be read, or name what is not served.
    """
    pools_prompt = bool(overrides.get(POOLS_PROMPT, True))
    if "pooling" in overrides:
        pooling = _joined(pooling_modes(overrides["pooling"]), f"card override of {folder}")
        where = f"card override of {folder}: {POOLS_PROMPT}"
        _check_first_token(where, pooling, pools_prompt=pools_prompt)
        return pooling, pools_prompt
    module = next((module.folder for module in modules if module.kind == "Pooling"), None)
    if module is None and modules:
        return None, pools_prompt
    path = (module or folder / "1_Pooling") / "config.json"
    if not path.is_file():
        if module is not None:
            raise FormatError(f"{path}: missing, so the pooling is unknown; {WAY_OUT}")
        return None, pools_prompt
    config = read_json(path)
    stated = config.get("include_prompt", True)
    if not isinstance(stated, bool):
        raise FormatError(f"{path}: include_prompt must be true or false")
    pools_prompt = bool(overrides.get(POOLS_PROMPT, stated))
    if "pooling_mode" in config:
        modes = config["pooling_mode"]
        modes = modes if isinstance(modes, list) else [modes]
        pooling = _joined(modes, str(path), way_out=f"; {WAY_OUT}")
    else:
        pooling = _flagged(config, path)
    _check_first_token(f"{path}: include_prompt", pooling, pools_prompt=pools_prompt)
    return pooling, pools_prompt


def _check_first_token(where: str, pooling: str, *, pools_prompt: bool) -> None:
    """Refuse what versions of the library disagree about.

    Raises:
        FormatError: A prompt is left out of a pooling that takes the first token.
    """
    if not pools_prompt and "cls" in pooling_modes(pooling):
        raise FormatError(
            f"{where}: false with the pooling cls takes the first token behind a prompt in some "
            f"versions of the library, and the first of all in others; {WAY_OUT}"
        )


def _joined(modes: Sequence[object], where: str, way_out: str = "") -> str:
    """Return the pooling of the new form's modes, by the library's names or ours; several are concatenated."""
    if not modes:
        raise FormatError(f"{where}: pooling_mode is an empty list{way_out}")
    if len(modes) == 1 and modes[0] in OWN_POOLINGS:
        return str(modes[0])
    names = []
    for mode in modes:
        if not isinstance(mode, str) or mode not in (*POOLING_NAMES, *POOLING_NAMES.values()):
            raise FormatError(
                f"{where}: pooling_mode {mode!r} is not one of {', '.join(POOLING_NAMES)}{way_out}"
            )
        names.append(POOLING_NAMES.get(mode, mode))
    return JOINT.join(names)


def _flagged(config: Mapping[str, Any], path: Path) -> str:
    """Return the pooling of the old form; where no flag is true, the library takes the mean."""
    flags = {key: value for key, value in config.items() if key.startswith(FLAG_PREFIX)}
    for key, value in flags.items():
        if value is not None and not isinstance(value, bool):
            raise FormatError(f"{path}: {key} must be true or false; {WAY_OUT}")
        if value and key not in POOLING_FLAGS:
            raise FormatError(f"{path}: '{key}' is not supported; {WAY_OUT}")
    if not flags and not any(size in config for size in SIZES):
        raise FormatError(f"{path}: names no pooling_mode; {WAY_OUT}")
    modes = [mode for key, mode in POOLING_FLAGS.items() if flags.get(key)]
    return JOINT.join(modes or ["mean"])
