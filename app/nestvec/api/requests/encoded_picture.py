"""Pictures as JSON holds them, in base64 or as data URLs (RFC 2397), alone or beside texts; the bytes of files. Pure.

Whitespace, the URL-safe alphabet and missing padding are taken, as clients send all of them: google-genai writes the
URL-safe one. The media type of a data URL says nothing: what a file is, its bytes tell.
"""

import binascii
import re
from dataclasses import dataclass
from typing import Final

from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.errors import InputError, UnsupportedError

DATA_URL: Final = "data:"
# What stands before the comma of a data URL: no client's is nearly as long.
MAX_HEAD_CHARS: Final = 256
SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:")
# Media types that pictures come under; whoever does not know his file's type sends the last.
PICTURE_TYPES: Final = ("", "image/", "application/octet-stream")
# Decoded in one go: Python's lock is held for 1 ms.
SLICE_CHARS: Final = 256 * 1024
WHITESPACE: Final = "\n\r\t "
PAD: Final = "="


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture among the inputs of a body.

    Attributes:
        text: Its file in base64, alone or as a data URL.
    """

    text: str

    @property
    def most_bytes(self) -> int:
        """How many bytes its file has at most."""
        return len(self.text) // 4 * 3 + 3

    def decoded(self, bounds: PictureBounds, ticket: WorkTicket) -> bytes:
        """Return the bytes of its file.

        Args:
            bounds: How many there may be.
            ticket: Checked between slices.

        Raises:
            InputError: It is no base64, or of more bytes than a picture may have.
            UnsupportedError: It is a URL of somewhere else, or of something else than a picture.
            CancelledError: Nobody waits any more.
        """
        start = self.content_start()
        data = _decoded(self.text, start, ticket)
        bounds.check_bytes(len(data))
        return data

    def content_start(self) -> int:
        """Return where the base64 begins.

        Raises:
            InputError: It is a data URL without base64.
            UnsupportedError: It is a URL of somewhere else, or of something else than a picture.
        """
        head = self.text[:MAX_HEAD_CHARS].lstrip()
        if SCHEME.match(head) is None:
            return 0
        if head[: len(DATA_URL)].lower() != DATA_URL:
            raise UnsupportedError(
                "pictures are not fetched from URLs, as the server would reach into its network for any caller; send "
                "the file itself, in base64 or as a data URL",
                param="input",
            )
        declared, comma, _ = head[len(DATA_URL) :].partition(",")
        words = declared.lower().replace(" ", "").split(";")
        if not comma or words[-1] != "base64":
            raise InputError(
                "a data URL must be 'data:image/…;base64,' and then the file in base64",
                param="input",
                code="invalid_image",
            )
        if words[0] not in PICTURE_TYPES and not words[0].startswith("image/"):
            raise UnsupportedError(
                "a data URL declares another media type than that of a picture (image/…)",
                param="input",
            )
        return self.text.index(",") + 1


@dataclass(frozen=True, slots=True)
class EncodedMixture:
    """Texts and pictures among the inputs of a body that are one input together.

    Attributes:
        parts: Texts and pictures, in their order.
        instruction: What is wanted of them, as a chat's system message says it; None where there is none.
    """

    parts: tuple[str | EncodedPicture, ...]
    instruction: str | None = None

    @property
    def pictures(self) -> tuple[EncodedPicture, ...]:
        """The pictures among its parts."""
        return tuple(part for part in self.parts if isinstance(part, EncodedPicture))


# An input of a body that is no text and no token ids.
EncodedInput = EncodedPicture | EncodedMixture


def _decoded(text: str, start: int, ticket: WorkTicket) -> bytes:
    """Decode base64 in slices.

    Raises:
        InputError: It is no base64.
        CancelledError: Nobody waits any more.
    """
    pieces: list[bytes] = []
    rest = ""
    try:
        for place in range(start, len(text), SLICE_CHARS):
            ticket.check()
            piece = rest + _plain(text[place : place + SLICE_CHARS])
            whole = len(piece) // 4 * 4
            if place + SLICE_CHARS >= len(text):
                piece = piece.rstrip(PAD)
                piece += PAD * (-len(piece) % 4)
                whole = len(piece)
            pieces.append(binascii.a2b_base64(piece[:whole], strict_mode=True))
            rest = piece[whole:]
    # ValueError: characters beyond ASCII.
    except ValueError as error:
        raise InputError(
            "a picture must be the file in base64, or a data URL, and this is no base64",
            param="input",
            code="invalid_image",
        ) from error
    return b"".join(pieces)


def _plain(text: str) -> str:
    """Return base64 in its common alphabet, without whitespace."""
    for space in WHITESPACE:
        text = text.replace(space, "")
    return text.replace("-", "+").replace("_", "/")
