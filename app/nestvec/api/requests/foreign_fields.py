"""Fields that a dialect does not know: ignored, unless ignoring one would give other vectors than the caller wants."""

from collections.abc import Mapping
from typing import Any, Final

from nestvec.api.dialect_table import Dialect
from nestvec.api.state import ApiState
from nestvec.errors import InputError

# Fields of any dialect that change vectors, each with the values that change nothing. Clients send many more fields,
# also ones that no API documents, so only these are refused where they are unknown.
VECTOR_FIELDS: Final[Mapping[str, tuple[object, ...]]] = {
    "dimensions": (),
    "output_dimension": (),
    "output_dtype": ("float", "float32"),
    "embedding_type": ("float",),
    "embedding_types": (["float"],),
    "embed_dtype": ("float32",),
    "normalize": (True,),
    "normalized": (True,),
    "use_activation": (True,),
    "add_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "late_chunking": (False,),
    "return_multivector": (False,),
    "prompt": (),
    "prompt_name": (),
    "instruction": (),
    "examples": ([],),
    "input_type": (),
    "task": (),
    "layers": (),
    "map": (),
}


def check_fields(
    body: Mapping[str, Any], known: frozenset[str], state: ApiState, dialect: Dialect
) -> None:
    """Refuse fields of other dialects that would change vectors, and any unknown ones where the operator says so.

    Args:
        body: As parsed from JSON.
        known: The fields that the route reads or may safely ignore.
        state: Whose options say whether unknown fields are refused.
        dialect: Named in the message.

    Raises:
        InputError: A field is refused; the first one is named.
    """
    if state.options.reject_unknown_fields and (unknown := sorted(set(body) - known)):
        name = unknown[0][:100]
        raise InputError(f"unknown field '{name}'", param=name, code="unknown_field")
    for name in sorted(VECTOR_FIELDS.keys() & body.keys() - known):
        if body[name] not in (None, *VECTOR_FIELDS[name]):
            raise InputError(
                f"`{name}` is a field of another dialect than this request's ({dialect.title}), "
                "and ignoring it would give other vectors than you ask for",
                param=name,
                code="foreign_field",
            )
