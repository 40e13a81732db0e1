"""The pictures among a call's inputs: decoded and made to pixels in the front's threads, then items like any others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from nestvec.engine.front.front_threads import FrontThreads
from nestvec.engine.front.prefixed_inputs import PrefixedInputs
from nestvec.engine.front.together import all_or_none
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.outputs.joint import kinds_of
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture
from nestvec.engine.pictures.naflex import tower_of_call
from nestvec.engine.pictures.picture import PICTURE_KINDS, MixedInput, Picture
from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.pictures.tower import VisionTower
from nestvec.engine.results import RawVectors
from nestvec.engine.text.encoded import Encoded
from nestvec.engine.text.token_budget import TokenBudget
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import EmbedCall, Item, OutputKind, Submission
from nestvec.errors import InputError, NestvecError, RequestTooLargeError, UnsupportedError

# Pixels of one call, which are in memory until the last of them has run.
MAX_PIXEL_BYTES: Final = 256 * 2**20
# Pixels of one submission, which the event loop copies into a frame where another process runs the model.
SUBMITTED_BYTES: Final = 16 * 2**20
# Decoding so many bytes of a file, and resizing what comes of them, takes about as long as tokenizing a character.
BYTES_PER_CHAR: Final = 16


def has_pictures(call: EmbedCall) -> bool:
    """Whether there is a picture among the inputs, or in one; some nanoseconds an input."""
    return not PICTURE_KINDS.isdisjoint(map(type, call.inputs))


@dataclass(frozen=True, slots=True)
class PictureInputs:
    """The pictures of a call, beside its texts.

    Attributes:
        texts: The call without them.
        text_places: Index of each of its inputs in the whole call.
        places: Index of each picture in the whole call.
        pictures: The pictures.
        tower: How the model takes them.
    """

    texts: EmbedCall
    text_places: tuple[int, ...]
    places: tuple[int, ...]
    pictures: tuple[Picture, ...]
    tower: VisionTower

    @property
    def tokens(self) -> int:
        """Most tokens that the pictures run as."""
        return len(self.pictures) * self.tower.tokens

    @property
    def fewest_tokens(self) -> int:
        """Fewest tokens that they run as, before their sizes are known."""
        return len(self.pictures) * self.tower.fewest_tokens()

    async def encode(
        self,
        front: FrontThreads,
        bounds: PictureBounds,
        ticket: Callable[[], WorkTicket],
        budget: TokenBudget,
    ) -> list[Encoded]:
        """Decode all pictures, and make pixels of them.

        Args:
            front: The threads that do it.
            bounds: Bounds on each picture.
            ticket: Makes a ticket of the call's for each picture, as each has a thread of its own.
            budget: Counts the tokens of the pictures, which some have more of than others.

        Raises:
            InputError: One cannot be decoded, or is too large; names its index.
            RequestTooLargeError: They have more tokens than the budget.
            QueueFullError: Too much waits for the threads.
        """
        return await all_or_none(
            [
                front.run(
                    partial(self._encoded, place, picture, bounds, budget),
                    ticket(),
                    chars=len(picture.data) // BYTES_PER_CHAR,
                )
                for place, picture in zip(self.places, self.pictures, strict=True)
            ]
        )

    def _encoded(
        self, place: int, picture: Picture, bounds: PictureBounds, budget: TokenBudget
    ) -> Encoded:
        budget.check()
        try:
            pixels = self.tower.pixels(decode_picture(picture.data, bounds))
        except InputError as error:
            error.input_index = place
            raise
        ids = self.tower.ids(pixels)
        budget.add_tokens(len(ids))
        return Encoded(ids, is_truncated=False, pixels=pixels)

    def joined(self, texts: Sequence[Encoded], pictures: Sequence[Encoded]) -> list[Encoded]:
        """Put texts and pictures into the order of the call's inputs."""
        by_place = {
            **dict(zip(self.text_places, texts, strict=True)),
            **dict(zip(self.places, pictures, strict=True)),
        }
        return [by_place[place] for place in range(len(by_place))]

    def at_place(self, error: NestvecError) -> None:
        """Make an error of the texts name the input's index in the whole call."""
        index = getattr(error, "input_index", None)
        if index is not None:
            error.input_index = self.text_places[index]  # type: ignore[attr-defined]  # it has one

    def submissions(self, submission: Submission) -> list[tuple[list[int], Submission]]:
        """Split a call as the core takes it: texts, and pictures a few at a time.

        Returns:
            For each part the positions of its items, and the part.
        """
        items = submission.items
        texts = [n for n, item in enumerate(items) if item.pixels is None]
        pictures = [n for n, item in enumerate(items) if item.pixels is not None]
        size = max(1, SUBMITTED_BYTES // self.tower.pixel_bytes)
        options = replace(submission.options, are_pictures=True, layer_share=self.tower.token_cost)
        parts = [(texts, submission.with_items(items[n] for n in texts))] if texts else []
        for start in range(0, len(pictures), size):
            numbers = pictures[start : start + size]
            chosen: tuple[Item, ...] = tuple(items[n] for n in numbers)
            parts.append((numbers, Submission(options, chosen)))
        return parts


def merged_rows(parts: Sequence[tuple[Sequence[int], RawVectors]]) -> RawVectors:
    """Put the rows of a call's parts into the order of its items."""
    if len(parts) == 1:
        return parts[0][1]
    order = np.concatenate([np.asarray(numbers, np.int64) for numbers, _ in parts])
    counts = np.concatenate([np.asarray(raw.rows, np.int64) for _, raw in parts])
    rows = np.concatenate([raw.vectors for _, raw in parts])
    return RawVectors(
        rows[np.argsort(np.repeat(order, counts), kind="stable")],
        tuple(counts[np.argsort(order)].tolist()),
        max(raw.queue_wait_s for _, raw in parts),
        max(raw.engine_s for _, raw in parts),
    )


def pictures_of(
    call: EmbedCall, spec: ModelSpec, exits: tuple[int, ...]
) -> PictureInputs | PrefixedInputs:
    """Take a call's pictures apart from its texts.

    Args:
        call: The call, which has pictures.
        spec: What its model is.
        exits: Early layers that are asked for.

    Raises:
        UnsupportedError: The model takes texts only.
        InputError: An option goes with texts only; names the field.
        RequestTooLargeError: There are more than are held in memory for one call.
    """
    places = tuple(n for n, value in enumerate(call.inputs) if type(value) in PICTURE_KINDS)
    is_of_texts = all(_is_of_texts(call.inputs[n]) for n in places)
    if spec.pictures is None and not (spec.chat is not None and is_of_texts):
        raise UnsupportedError(
            f"{spec.name} takes texts only, and this input is a picture",
            param="input",
            input_index=places[0],
        )
    if not is_of_texts:
        _check_options(call, spec, exits)
    tower = spec.pictures if is_of_texts else tower_of_call(spec.pictures, call.picture_patches)
    mixed = next((n for n in places if isinstance(call.inputs[n], MixedInput)), None)
    if spec.chat is None and mixed is not None:
        raise one_each(spec, "input", mixed)
    if tower is None or isinstance(tower, PrefixTower):
        return PrefixedInputs.of(call, spec)
    max_pictures = MAX_PIXEL_BYTES // tower.pixel_bytes
    if len(places) > max_pictures:
        raise RequestTooLargeError(
            f"a request takes at most {max_pictures} pictures of this model, got {len(places)}",
            param="input",
        )
    text_places = tuple(n for n, value in enumerate(call.inputs) if not isinstance(value, Picture))
    texts = replace(call, inputs=[call.inputs[n] for n in text_places])
    pictures = tuple(value for value in call.inputs if isinstance(value, Picture))
    return PictureInputs(texts, text_places, places, pictures, tower)


def one_each(spec: ModelSpec, name: str, index: int | None) -> InputError:
    """Return the error for an input of several pictures, or of a picture and a text, of a model that reads one."""
    reason = (
        "an input is a text or one picture: a model with a tower for each makes a vector of either, in one space, and "
        "none of both together. Send them as inputs of their own; their vectors may be averaged ('groups')"
    )
    if spec.reads_pictures_as_tokens:
        reason = (
            f"an input is a text or one picture: {spec.name} reads either in a prompt of its own, and none of both "
            "together. Send them as inputs of their own"
        )
    return InputError(reason, param=name, input_index=index, code="unsupported")


def _is_of_texts(value: object) -> bool:
    return isinstance(value, MixedInput) and not value.pictures


def _check_options(call: EmbedCall, spec: ModelSpec, exits: tuple[int, ...]) -> None:
    """Refuse what pictures do not have, where texts do."""
    if exits:
        raise InputError("'layers' goes with texts only, not with pictures", param="layers")
    if spec.reads_pictures_as_tokens:
        if not {OutputKind.DENSE, OutputKind.TOKENS}.issuperset(kinds_of(call.kind)):
            raise InputError("a picture has vectors, and no weights of terms", param="input")
    elif call.kind is not OutputKind.DENSE:
        raise InputError("a picture has one vector, and no other output", param="input")
