"""What a request says of its pictures: how many patches each may have, in vLLM's words."""

from typing import Final

from nestvec.api.requests.fields import Body, as_integer, option
from nestvec.engine.pictures.naflex import MAX_PATCHES, MIN_PATCHES
from nestvec.errors import InputError, UnsupportedError

FIELD: Final = "mm_processor_kwargs"
PATCHES: Final = "max_num_patches"


def parse_picture_patches(body: Body) -> int | None:
    """Read `mm_processor_kwargs`, of which `max_num_patches` is taken, as transformers' processor has it.

    Returns:
        The most patches of a picture; None for as many as the server says.

    Raises:
        InputError: It is no object, or the number is none or out of range.
        UnsupportedError: It says something else; names it.
    """
    values = option(body, FIELD)
    if values is None:
        return None
    if not isinstance(values, dict):
        raise InputError(f"'{FIELD}' must be an object", param=FIELD, code="invalid_type")
    other = next(
        (name for name, value in values.items() if name != PATCHES and value is not None), None
    )
    if other is not None:
        raise UnsupportedError(
            f"'{FIELD}' may hold '{PATCHES}' only: what else is made of a picture is what the model's folder says",
            param=FIELD,
        )
    if values.get(PATCHES) is None:
        return None
    patches = as_integer(values[PATCHES])
    if patches is None or not MIN_PATCHES <= patches <= MAX_PATCHES:
        raise InputError(
            f"'{FIELD}.{PATCHES}' must be an integer from {MIN_PATCHES} to {MAX_PATCHES}",
            param=FIELD,
        )
    return patches
