"""The words in which vendors write pictures and texts into one body: an object, or the parts of a content.

Sources: the API references of OpenAI (`image_url`, `input_image`), Cohere, Voyage (`image_base64`), Jina and Google
(`inlineData`), and what their clients send.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nestvec.api.requests.encoded_picture import EncodedInput, EncodedMixture, EncodedPicture
from nestvec.api.requests.fields import Body, invalid_item, texts_field
from nestvec.engine.front.picture_inputs import one_each
from nestvec.engine.model_spec import ModelSpec
from nestvec.errors import InputError, RequestTooLargeError, UnsupportedError

# Where a part without `type` has its picture, whatever else is in it.
PICTURE_FIELDS: Final = ("image", "image_url", "image_base64", "url", "bytes")
TEXT_TYPES: Final = ("text", "input_text")
# Where a part of a type has its picture.
PICTURE_TYPES: Final[Mapping[str, str]] = {
    "image_url": "image_url",
    "input_image": "image_url",
    "image_base64": "image_base64",
    "image": "image",
}
# Of texts and pictures that are one input together, which are looked through one by one.
MAX_PARTS: Final = 1024
INLINE_DATA: Final = ("inlineData", "inline_data")
FILE_DATA: Final = ("fileData", "file_data")


def has_parts(item: Mapping[str, Any]) -> bool:
    """Whether an object among the inputs is a part, or a content of parts, as OpenAI's APIs write them."""
    return "type" in item or "content" in item


def names_picture(item: Mapping[str, Any]) -> bool:
    """Whether an object among the inputs has a field for a picture, or a list of parts."""
    return isinstance(item.get("content"), list) or any(name in item for name in PICTURE_FIELDS)


def read_objects(value: object) -> object:
    """Return `input` with texts and encoded pictures for the objects in it.

    Args:
        value: As parsed from JSON; a list no longer than inputs may be.

    Raises:
        InputError: An object is none of the forms; names the item at fault.
        UnsupportedError: It holds something else than texts and pictures.
    """
    if not isinstance(value, list) or dict not in set(map(type, value)):
        return value
    return [
        read_object(item, "input", index) if isinstance(item, dict) else item
        for index, item in enumerate(value)
    ]


def read_items(
    value: object, name: str, *, check_count: Callable[[int], None]
) -> tuple[Sequence[str | EncodedInput], bool]:
    """Read texts, plain or as objects, pictures, and both at once: a text, or a list in which each item may be any.

    Args:
        value: As parsed from JSON.
        name: The field of the body that it is in, for errors.
        check_count: Raises for too many items; called first, so that a million of them cost nothing.

    Returns:
        The texts and pictures, and whether they came as a list.

    Raises:
        InputError: It holds something else; names the item at fault.
        UnsupportedError: It holds something else than texts and pictures.
    """
    if not isinstance(value, list) or dict not in set(map(type, value)):
        return texts_field({name: value}, name, check_count=check_count)
    check_count(len(value))
    return [_item(item, name, index) for index, item in enumerate(value)], True


def read_object(item: Mapping[str, Any], name: str, index: int) -> str | EncodedInput:
    """Read an object that is one input: a part, a content of parts, or fields with a text, a picture, or both.

    Args:
        item: The object.
        name: The field of the body that it is in, for errors.
        index: Its place there.

    Raises:
        InputError: It is none of these.
        UnsupportedError: It holds something else than texts and pictures.
    """
    if "content" in item and "type" not in item:
        return read_content(item["content"], name, index)
    if "type" not in item and item.get("text") is not None:
        pictures = [field for field in PICTURE_FIELDS if item.get(field) is not None]
        if pictures:
            text = _part({"text": item["text"]}, name, index)
            return with_picture(text, {field: item[field] for field in pictures}, name, index)
    return _part(item, name, index)


def with_picture(
    text: str | EncodedPicture, shown: Mapping[str, Any], name: str, index: int
) -> EncodedMixture:
    """Return one input of a text and the picture beside it, which the text follows.

    Args:
        text: The text.
        shown: Field and value of the picture: of several fields that say the same the first is read.
        name: The field of the body that it is in, for errors.
        index: Its place there.

    Raises:
        InputError: The field holds no picture.
    """
    return EncodedMixture((_part(shown, name, index), text))


def read_content(content: object, name: str, index: int) -> str | EncodedInput:
    """Read the parts of one input: texts, which become one with a line each, a picture, or texts and pictures.

    Args:
        content: A list of parts, or a text.
        name: The field of the body that it is in, for errors.
        index: Its place there.

    Raises:
        InputError: It is neither.
        RequestTooLargeError: It has more parts than are looked through on the event loop.
        UnsupportedError: It holds something else than texts and pictures.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise invalid_item(name, index, "must be an object with a list 'content'")
    # Whole lists at a time: there may be a hundred thousand parts.
    objects = content if set(map(type, content)) == {dict} else [{}]
    texts = [part.get("text") for part in objects]
    if {part.get("type", "text") for part in objects if _is_word(part)} <= set(TEXT_TYPES):
        if set(map(type, texts)) != {str}:
            if len(objects) == 1 and names_picture(objects[0]):
                return _part(objects[0], name, index)
            raise invalid_item(name, index, "must have parts of 'content' with a string 'text'")
        return "\n".join(texts)
    return mixture([_part(part, name, index) for part in _bounded(objects, name, index)])


def mixture(parts: Sequence[str | EncodedPicture]) -> EncodedInput:
    """Return parts, one at least of which is a picture, as one input."""
    (first, *more) = parts
    return first if isinstance(first, EncodedPicture) and not more else EncodedMixture(tuple(parts))


def _bounded(parts: list[Any], name: str, index: int | None) -> list[Any]:
    if len(parts) > MAX_PARTS:
        raise RequestTooLargeError(
            f"an input has {len(parts)} parts, max {MAX_PARTS}; join its texts",
            param=name,
            input_index=index,
        )
    return parts


def read_image(value: object, name: str, index: int) -> EncodedPicture:
    """Read a picture that stands alone: a data URL or base64.

    Raises:
        InputError: It is no string.
    """
    if not isinstance(value, str):
        raise invalid_item(name, index, "must be a data URL or base64, a string")
    return EncodedPicture(value)


def read_inline(part: Mapping[str, Any], name: str) -> EncodedPicture | None:
    """Read Google's `inlineData`; None where a part has none.

    Args:
        part: A part of a content.
        name: Where it stands, for errors.

    Raises:
        InputError: It holds no base64.
        UnsupportedError: The part is a file that lies elsewhere, or no picture.
    """
    if any(field in part for field in FILE_DATA):
        raise UnsupportedError(
            "files are not fetched from elsewhere; send the picture itself, as 'inlineData'",
            param=f"{name}.fileData",
        )
    blob = next((part[field] for field in INLINE_DATA if field in part), None)
    if blob is None:
        return None
    data = blob.get("data") if isinstance(blob, dict) else None
    if not isinstance(data, str):
        raise InputError(
            "'inlineData' must be an object with the file's base64 as 'data'",
            param=f"{name}.inlineData",
        )
    media_type = blob.get("mimeType", blob.get("mime_type", ""))
    if isinstance(media_type, str) and media_type.partition("/")[0].lower() in (
        *("audio", "video", "text"),
    ):
        raise UnsupportedError(
            "only texts and pictures are embedded", param=f"{name}.inlineData.mimeType"
        )
    return EncodedPicture(data)


def chat_input(body: Body, spec: ModelSpec | None) -> EncodedInput | None:
    """Return the input that vLLM's `messages` are, where they stand in place of an input.

    Args:
        body: As parsed from JSON.
        spec: The model; None where it is not loaded, and the engine says what it takes.

    Returns:
        The input; None where there is an input, or no messages.

    Raises:
        InputError: The messages are not a user's, with a system's before it.
        UnsupportedError: There are messages without a picture, of a model that reads none.
    """
    messages = body.get("messages")
    if body.get("input") is not None or messages is None:
        return None
    listed = messages if isinstance(messages, list) else []
    if spec is not None and spec.chat is None:
        return _chat_picture(listed, spec)
    system, user = _messages(listed)
    content = read_content(user, "messages", 0)
    if isinstance(content, EncodedPicture) and system is None:
        return content
    parts = content.parts if isinstance(content, EncodedMixture) else (content,)
    return EncodedMixture(parts, system)


def _messages(listed: list[Any]) -> tuple[str | None, object]:
    """Return what a system's message says, and the content of the user's.

    An empty message of an assistant may follow, by which vLLM's callers have the beginning of an answer written.

    Raises:
        InputError: There are other messages.
    """
    roles = [each.get("role") if isinstance(each, dict) else None for each in listed]
    if roles[-1:] == ["assistant"]:
        roles.pop()
    if roles not in (["user"], ["system", "user"]):
        raise InputError(
            "'messages' must be a user's, behind a system's or none: one vector is made of them",
            param="messages",
        )
    behind = listed[len(roles) :]
    others = [*listed[: len(roles) - 1], *behind]
    texts = [read_content(each.get("content") or "", "messages", 0) for each in others]
    if not all(isinstance(text, str) for text in texts) or (behind and texts[-1]):
        raise InputError(
            "a system's message must be of text, and an assistant's empty", param="messages"
        )
    system = str(texts[0]) if len(roles) > 1 else None
    return system, listed[len(roles) - 1].get("content")


def _chat_picture(listed: list[Any], spec: ModelSpec) -> EncodedInput | None:
    """Return the picture of messages, of a model without a chat template.

    Raises:
        InputError: There are several messages.
        UnsupportedError: There is no picture.
    """
    contents = [each.get("content") for each in listed if isinstance(each, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content[:2]]
    if not any(isinstance(part, dict) and part.get("type") in PICTURE_TYPES for part in parts):
        raise UnsupportedError(
            "'messages' of texts need a model with a chat template, and the one here has none; send 'input'",
            param="messages",
        )
    if len(listed) > 1:
        raise one_each(spec, "messages", None)
    content = read_content(contents[0], "messages", 0)
    return None if isinstance(content, str) else content


def _item(item: object, name: str, index: int) -> str | EncodedInput:
    if isinstance(item, str):
        return item
    if not isinstance(item, dict):
        raise invalid_item(name, index, "must be a string, or an object with 'text' or 'image'")
    return read_object(item, name, index)


def _part(part: Mapping[str, Any], name: str, index: int) -> str | EncodedPicture:
    """Read one part.

    Raises:
        InputError: It holds neither a text nor a picture.
        UnsupportedError: It is of a type that is not embedded.
    """
    kind = part.get("type")
    if kind is None:
        return _bare(part, name, index)
    if kind in TEXT_TYPES:
        text = part.get("text")
        if not isinstance(text, str):
            raise invalid_item(name, index, "must have a string 'text' where its 'type' is text")
        return text
    field = PICTURE_TYPES.get(kind) if isinstance(kind, str) else None
    if field is None:
        raise UnsupportedError(
            "only texts and pictures are embedded: 'type' must be text, image_url or another word for one of them",
            param=name,
            input_index=index,
        )
    value = part.get(field)
    # Voyage's client writes a data URL under either name.
    url = value.get("url") if isinstance(value, dict) else value
    if not isinstance(url, str):
        raise invalid_item(
            name, index, f"must have a data URL or base64 as '{field}' where its 'type' is '{kind}'"
        )
    return EncodedPicture(url)


def _bare(item: Mapping[str, Any], name: str, index: int) -> str | EncodedPicture:
    """Read an object without a type, of Jina's kind."""
    fields = [field for field in PICTURE_FIELDS if item.get(field) is not None]
    text = item.get("text")
    if fields:
        value = item[fields[0]]
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str):
            raise invalid_item(name, index, f"must have a data URL or base64 as '{fields[0]}'")
        return EncodedPicture(url)
    if not isinstance(text, str):
        raise invalid_item(name, index, "must be a string, or an object with 'text' or 'image'")
    return text


def _is_word(part: Mapping[str, Any]) -> bool:
    """Whether what a part says of its type can be looked up."""
    return isinstance(part.get("type", ""), str)
