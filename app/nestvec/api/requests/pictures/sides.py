"""Fields of a body whose texts and pictures are compared: read together, as bounds are on the whole request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.encoded_picture import EncodedInput
from nestvec.api.requests.fields import Body, content_field, texts_field
from nestvec.api.requests.json_parts import texts_json
from nestvec.api.requests.pictures.parts import read_items, read_object
from nestvec.api.requests.pictures.reading import ENCODED, read_inputs
from nestvec.engine.pictures.picture import PICTURE_KINDS, MixedInput, Picture
from nestvec.errors import InputError

# What a route without token ids compares.
SideInputs = Sequence[str | Picture | MixedInput]


@dataclass(frozen=True, slots=True)
class PictureSide:
    """Texts and pictures of one field.

    Attributes:
        items: They, as parsed from the body; no token ids.
        name: The field.
        is_list: Whether they came as a list, so that an error names one of them.
    """

    items: Sequence[str | EncodedInput]
    name: str
    is_list: bool = True


def picture_side(
    body: Body, name: str, *, check_count: Callable[[int], None], accepts_single: bool = True
) -> PictureSide:
    """Read a field of a text or a picture, or of both at once, or of a list of them.

    Args:
        body: As parsed from JSON.
        name: The field.
        check_count: Raises for too many items; called first, so that a million of them cost nothing.
        accepts_single: Whether a single one may come bare.

    Raises:
        InputError: The field holds something else; names the item at fault.
        UnsupportedError: It holds something else than texts and pictures.
    """
    value = body.get(name)
    if isinstance(value, dict) and accepts_single:
        return PictureSide([read_lone(value, name)], name, is_list=False)
    if isinstance(value, list) or accepts_single:
        items, is_list = read_items(value, name, check_count=check_count)
    else:
        items, is_list = texts_field(body, name, check_count=check_count, accepts_single=False)
    return PictureSide(items, name, is_list=is_list)


def query_side(body: Body) -> PictureSide:
    """Read `query`: a text, or an object with a text, a picture or both.

    Raises:
        InputError: It is missing, or something else.
        UnsupportedError: It holds something else than a text or a picture.
    """
    value = body.get("query")
    if isinstance(value, dict):
        return PictureSide([read_lone(value, "query")], "query", is_list=False)
    query = content_field(body, "query")
    if query is None:
        raise InputError("you must provide 'query'", param="query")
    return PictureSide([query], "query", is_list=False)


def read_lone(value: dict[str, object], name: str) -> str | EncodedInput:
    """Read an object that a field holds by itself.

    Raises:
        InputError: It holds neither a text nor a picture.
        UnsupportedError: It holds something else.
    """
    try:
        return read_object(value, name, 0)
    except InputError as error:
        error.input_index = None
        raise


async def read_sides(api_request: ApiRequest, *sides: PictureSide) -> list[SideInputs]:
    """Decode the pictures of all sides from base64; returns each side with them.

    Args:
        api_request: The request, whose client may leave meanwhile.
        sides: In the order of the fields.

    Raises:
        ClientDisconnect: The client went away.
        InputError: A picture cannot be read, is too large, or there are too many; names field and index.
        UnsupportedError: The model takes texts only, or there is no Pillow.
        QueueFullError: Other requests leave no memory for the files.
        DeadlineError: The deadline passed.
    """
    joined: list[str | EncodedInput] = [item for side in sides for item in side.items]
    if ENCODED.isdisjoint(map(type, joined)):
        return [cast("SideInputs", side.items) for side in sides]
    try:
        read = await read_inputs(api_request, joined)
    except InputError as error:
        _name_side(error, sides)
        raise
    found: list[SideInputs] = []
    start = 0
    for side in sides:
        stop = start + len(side.items)
        found.append(cast("SideInputs", read.inputs[start:stop]))
        start = stop
    return found


def has_pictures(*sides: SideInputs) -> bool:
    """Whether there is a picture on any side, alone or beside a text."""
    return any(not PICTURE_KINDS.isdisjoint(map(type, side)) for side in sides)


async def documents_json(documents: SideInputs) -> list[bytes]:
    """Encode the texts of documents; of one with a picture null: whoever sent it knows it by its index."""
    texts = await texts_json([each if isinstance(each, str) else "" for each in documents])
    pairs = zip(texts, documents, strict=True)
    return [text if isinstance(each, str) else b"null" for text, each in pairs]


def _name_side(error: InputError, sides: Sequence[PictureSide]) -> None:
    """Make an error of all sides together name the side and the index there."""
    index = error.input_index
    for side in sides:
        is_here = index is None and not ENCODED.isdisjoint(map(type, side.items))
        if is_here or (index is not None and index < len(side.items)):
            error.param = side.name if error.param == "input" else error.param
            error.input_index = index if side.is_list else None
            return
        index = None if index is None else index - len(side.items)
