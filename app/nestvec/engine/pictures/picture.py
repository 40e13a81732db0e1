"""Picture and MixedInput: inputs that are no texts."""

from dataclasses import dataclass
from typing import Final

PatchGrid = tuple[int, int, int]  # rows and columns of patches, and how many of either make a token


@dataclass(frozen=True)
class Picture:
    """A picture among the inputs of a call, for models that read pictures and texts into one space.

    Attributes:
        data: The bytes of an encoded file, PNG, JPEG or another, as they were sent, with no base64 around them.
    """

    data: bytes


@dataclass(frozen=True)
class MixedInput:
    """Texts and pictures that make one input together, in their order, for models that read both at once.

    Attributes:
        parts: Texts and pictures, at least one.
        instruction: What is wanted of this input, in place of what its call says; None for that.
    """

    parts: tuple[str | Picture, ...]
    instruction: str | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures among its parts."""
        return tuple(part for part in self.parts if isinstance(part, Picture))

    @property
    def chars(self) -> int:
        """Number of characters of its texts."""
        return sum(len(part) for part in self.parts if isinstance(part, str))


# Types of inputs that are no texts.
PICTURE_KINDS: Final = frozenset({Picture, MixedInput})
