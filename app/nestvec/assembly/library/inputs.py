"""What a caller of the library may embed: texts, pictures as files, paths and Pillow's images, and both at once."""

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from typing_extensions import TypeIs

from nestvec.engine.pictures.images import picture_of_image
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

# A text is a text, even one that spells a path: files are named by objects of `pathlib`.
LibraryPart: TypeAlias = "str | bytes | bytearray | memoryview | os.PathLike[str] | Image"
# A list of texts and pictures among the inputs is one input of all of them, for models that read both at once.
LibraryInput: TypeAlias = "LibraryPart | list[LibraryPart] | tuple[LibraryPart, ...]"
FileBytes: Final = (bytes, bytearray, memoryview)
MIXTURES: Final = (list, tuple)
# Where texts are taken a slice at a time, a picture counts as so many of them, and as one for so many bytes of it: what
# is in memory at once is a few dozen pictures, and some 64 MiB of their files.
TEXTS_PER_PICTURE: Final = 16
BYTES_PER_TEXT: Final = 64 * 1024
RGB_BYTES: Final = 3


def is_one_input(inputs: object) -> "TypeIs[LibraryPart]":
    """Whether what was given is a text or a picture, and no list of them."""
    return isinstance(inputs, str | os.PathLike | bytes | bytearray | memoryview) or _is_image(
        inputs
    )


def checked_inputs(inputs: "Iterable[LibraryInput]", name: str) -> "Sequence[LibraryInput]":
    """Return texts, pictures, and lists of both that are one input, as a sequence.

    Raises:
        InputError: It is no list of them, or holds something that is none; names the index.
    """
    if is_one_input(inputs):  # a string is a list of strings, too
        raise InputError(f"'{name}' must be a list of texts or pictures", param=name)
    listed = inputs if isinstance(inputs, list | tuple) else list(inputs)
    if set(map(type, listed)) <= {str}:
        return listed
    for index, value in enumerate(listed):
        check_input(value, name, index)
    return listed


def check_input(value: object, name: str, index: int) -> None:
    """Refuse what is no text, picture, or list of some.

    Raises:
        InputError: It is something else; names the index.
    """
    parts = value if isinstance(value, MIXTURES) else (value,)
    wrong = [part for part in parts if not is_one_input(part)]
    if wrong or not parts:
        kind = type(wrong[0]).__name__ if wrong else "an empty list"
        raise InputError(
            f"{name}[{index}] must be a text, or a picture as the bytes of its file, a pathlib.Path or an image "
            f"of Pillow's, or a list of both, not {kind}",
            param=name,
            input_index=index,
        )


def text_costs(inputs: "Sequence[LibraryInput]", name: str) -> list[int] | None:
    """Return as how many texts each input counts where they are taken a slice at a time; None where all are texts.

    Raises:
        InputError: A picture's file is not there; names the index.
    """
    if all(isinstance(value, str) for value in inputs):
        return None
    return [
        sum(_cost(part, name, n) for part in value)
        if isinstance(value, MIXTURES)
        else _cost(value, name, n)
        for n, value in enumerate(inputs)
    ]


def _cost(value: "LibraryPart", name: str, index: int) -> int:
    if isinstance(value, str):
        return 1
    return max(TEXTS_PER_PICTURE, _size(value, name, index) // BYTES_PER_TEXT)


async def read_pictures(
    inputs: "Sequence[LibraryInput]", name: str, first: int = 0
) -> Sequence[str | Picture | MixedInput]:
    """Return texts as they are, and pictures as the engine takes them, read in a thread.

    Args:
        inputs: Texts, pictures, and lists of both.
        name: The argument that they came in, for errors.
        first: Index in it of the first of them.

    Raises:
        InputError: A file or an image cannot be read; names the index.
    """
    if all(isinstance(value, str) for value in inputs):
        return cast("Sequence[str]", inputs)

    def read() -> list[str | Picture | MixedInput]:
        return [
            MixedInput(tuple(_read(part, name, first + number) for part in value))
            if isinstance(value, MIXTURES)
            else _read(value, name, first + number)
            for number, value in enumerate(inputs)
        ]

    return await asyncio.to_thread(read)


def _read(value: "LibraryPart", name: str, index: int) -> str | Picture:
    if isinstance(value, str):
        return value
    if isinstance(value, FileBytes):
        return Picture(bytes(value))
    if isinstance(value, os.PathLike):
        try:
            return Picture(Path(value).read_bytes())
        except OSError as error:
            raise _unreadable(error, name, index) from error
    try:
        return picture_of_image(value)
    except InputError as error:
        error.param, error.input_index = name, index
        error.add_note(f"The input is {name}[{index}].")
        raise


def _size(value: "LibraryPart", name: str, index: int) -> int:
    """Return about how many bytes a picture has once it is read."""
    if isinstance(value, str):
        return 0
    if isinstance(value, FileBytes):
        return memoryview(value).nbytes
    if isinstance(value, os.PathLike):
        try:
            return Path(value).stat().st_size
        except OSError as error:
            raise _unreadable(error, name, index) from error
    return RGB_BYTES * value.width * value.height


def _unreadable(error: OSError, name: str, index: int) -> InputError:
    return InputError(
        f"{name}[{index}]: the picture's file cannot be read ({error.strerror or type(error).__name__})",
        param=name,
        input_index=index,
    )


def _is_image(value: object) -> "TypeIs[Image]":
    """Whether something is an image of Pillow's: whoever has one has imported it."""
    library = sys.modules.get("PIL.Image")
    return library is not None and isinstance(value, library.Image)
