"""Picture: an input that is no text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A picture among the inputs of a call, for models that read pictures and texts into one space.

    Attributes:
        data: The bytes of an encoded file, PNG, JPEG or another, as they were sent, with no base64 around them.
    """

    data: bytes
