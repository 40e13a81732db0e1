"""Inputs with pictures, of a model that reads them among the tokens of a text: measured, decoded and tokenized.

A picture alone is such an input as well: it stands in messages as a text does, or in the prompt that the model has for
pictures.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from nestvec.engine.front.front_threads import FrontThreads
from nestvec.engine.front.together import all_or_none
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.model_spec import ModelSpec
from nestvec.engine.models.served_model import ServedModel
from nestvec.engine.pictures.decoding import PictureBounds, decode_picture, read_header
from nestvec.engine.pictures.picture import MixedInput, PatchGrid, Picture
from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.pictures.preprocessing import PixelArray
from nestvec.engine.text.encoded import Encoded, TokenizeOptions
from nestvec.engine.text.preparation.chat_frame import ChatFrame
from nestvec.engine.text.tokenizer import Tokenizer
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.engine.types import (
    EmbedCall,
    IdArray,
    ItemOptions,
    Submission,
    Truncation,
)
from nestvec.errors import (
    BackendError,
    InputError,
    InputTooLongError,
    NestvecError,
    RequestTooLargeError,
)

if TYPE_CHECKING:
    from PIL.Image import Image

# Pixels of one call, which are in memory until the last of them has run; of one input, which runs as a whole; and of
# one submission, which the event loop copies into a frame where another process runs the model.
MAX_PIXEL_BYTES: Final = 256 * 2**20
MAX_INPUT_BYTES: Final = 48 * 2**20
SUBMITTED_BYTES: Final = 16 * 2**20
# Decoding so many bytes of a file, and resizing what comes of them, takes about as long as tokenizing a character.
BYTES_PER_CHAR: Final = 16
BoolArray = NDArray[np.bool_]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PrefixedInputs:
    """The inputs of a call that have pictures, or messages of their own, beside its texts.

    Attributes:
        texts: The call without them.
        text_places: Index of each of its inputs in the whole call.
        places: Index of each input with pictures in the whole call.
        inputs: These.
        tower: How the model takes pictures.
        chat: The messages in which it reads inputs; None for a model that reads a picture in a prompt of its own,
            without texts.
    """

    texts: EmbedCall
    text_places: tuple[int, ...]
    places: tuple[int, ...]
    inputs: tuple[MixedInput, ...]
    tower: PrefixTower | None
    chat: ChatFrame | None

    @classmethod
    def of(cls, call: EmbedCall, spec: ModelSpec) -> "PrefixedInputs":
        """Take a call's inputs with pictures apart from its texts."""
        is_text = [not isinstance(value, Picture | MixedInput) for value in call.inputs]
        text_places = tuple(n for n, is_one in enumerate(is_text) if is_one)
        places = tuple(n for n, is_one in enumerate(is_text) if not is_one)
        inputs = [call.inputs[n] for n in places]
        tower = spec.pictures if isinstance(spec.pictures, PrefixTower) else None
        return cls(
            replace(call, inputs=[call.inputs[n] for n in text_places]),
            text_places,
            places,
            tuple(
                each if isinstance(each, MixedInput) else MixedInput((each,))
                for each in inputs
                if isinstance(each, Picture | MixedInput)
            ),
            tower,
            spec.chat,
        )

    async def encode(
        self,
        model: ServedModel,
        encode_texts: Coroutine[Any, Any, list[Encoded]],
        options: TokenizeOptions,
        limits: ServiceLimits,
        front: FrontThreads,
        arrived_s: float,
    ) -> list[Encoded]:
        """Token ids of all texts and of all inputs with pictures, in the order of the call's inputs.

        Args:
            model: The model.
            encode_texts: Tokenizes the call's texts.
            options: How they are tokenized.
            limits: Bounds on a call.
            front: The threads that measure, decode and tokenize.
            arrived_s: Monotonic time when the call came.

        Raises:
            InputError: An input cannot be tokenized or decoded, or is too long or large; names it.
            QueueFullError: Too much waits to be decoded or run.
        """
        try:
            texts = await encode_texts
        except NestvecError as error:
            self._at_place(error)
            raise
        call = self.texts
        limits.check_characters(self._as_texts, options.prompt)
        tokens = await self._measure(front, limits.pictures)
        limits.check_tokens(call, tokens)
        priority = limits.priority_of(call, len(self.places) + len(self.text_places))
        expected = ItemOptions(call.key_id, priority, call.deadline_s, arrived_s=arrived_s)
        with model.core.expecting(tokens, expected):
            inputs = await self._encode(front, limits.pictures, model.tokenizer, options)
        by_place = {
            **dict(zip(self.text_places, texts, strict=True)),
            **dict(zip(self.places, inputs, strict=True)),
        }
        return [by_place[place] for place in range(len(by_place))]

    @property
    def _as_texts(self) -> EmbedCall:
        """A call of as many texts with as many characters as these inputs have, to be bounded as texts are."""
        joined = ["".join(p for p in each.parts if isinstance(p, str)) for each in self.inputs]
        return replace(self.texts, inputs=joined)

    @property
    def _tower(self) -> PrefixTower:
        assert self.tower is not None  # noqa: S101 - whose inputs have pictures has one
        return self.tower

    def _at_place(self, error: NestvecError) -> None:
        """Make an error of the texts name the input's index in the whole call."""
        index = getattr(error, "input_index", None)
        if index is not None:
            error.input_index = self.text_places[index]  # type: ignore[attr-defined]  # it has one

    async def _measure(self, front: FrontThreads, bounds: PictureBounds) -> int:
        """Return how many tokens the pictures run as, by what their files declare.

        Raises:
            InputError: A file is none of a picture, or too large; names its input.
            RequestTooLargeError: There are more pixels than are held in memory for one call, or one input.
        """
        chars = sum(len(p.data) for each in self.inputs for p in each.pictures)
        if not chars:
            return 0
        ticket = WorkTicket.until(self.texts.deadline_s, front.clock)
        work = partial(self._measured, bounds, ticket)
        return await front.run(work, ticket, chars=chars // (BYTES_PER_CHAR * BYTES_PER_CHAR))

    def _measured(self, bounds: PictureBounds, ticket: WorkTicket) -> int:
        tokens = call_bytes = 0
        for place, each in zip(self.places, self.inputs, strict=True):
            input_bytes = 0
            for picture in each.pictures:
                ticket.check()
                header = _named(place, partial(read_header, picture.data, bounds))
                size = header.width, header.height
                tokens += self._tower.tokens_of(*size)
                input_bytes += self._tower.pixel_bytes_of(*size)
            call_bytes += input_bytes
            if input_bytes > MAX_INPUT_BYTES:
                raise _too_large("the pictures of one input", MAX_INPUT_BYTES, place)
            if call_bytes > MAX_PIXEL_BYTES:
                raise _too_large("the pictures of a request", MAX_PIXEL_BYTES, None)
        return tokens

    async def _encode(
        self,
        front: FrontThreads,
        bounds: PictureBounds,
        tokenizer: Tokenizer,
        options: TokenizeOptions,
    ) -> list[Encoded]:
        """Decode and tokenize all inputs, each in a thread of its own.

        Raises:
            InputError: A picture cannot be decoded, or an input is too long; names its index.
            QueueFullError: Too much waits for the threads.
        """
        works = []
        for place, each in zip(self.places, self.inputs, strict=True):
            ticket = WorkTicket.until(self.texts.deadline_s, front.clock)
            own = replace(options, ticket=ticket)
            assemble = partial(self._assembled, each, bounds, tokenizer, own)
            size = sum(len(picture.data) for picture in each.pictures)
            chars = size // BYTES_PER_CHAR + len(options.prompt) + each.chars
            works.append(front.run(partial(_named, place, assemble), ticket, chars=chars))
        return await all_or_none(works)

    def submissions(self, submission: Submission) -> list[tuple[list[int], Submission]]:
        """Split a call as the core takes it: texts, and inputs with pictures a few at a time.

        Returns:
            For each part the positions of its items, and the part.
        """
        items = submission.items
        groups: list[list[int]] = []
        room = 0
        for number, item in enumerate(items):
            if item.pixels is None:
                continue
            if not groups or item.pixels.nbytes > room:
                groups.append([])
                room = SUBMITTED_BYTES
            groups[-1].append(number)
            room -= item.pixels.nbytes
        texts = [n for n, item in enumerate(items) if item.pixels is None]
        parts = [(texts, submission.with_items(items[n] for n in texts))] if texts else []
        for numbers in groups:
            chosen = tuple(items[n] for n in numbers)
            tokens = sum(item.tokens for item in chosen)
            extra = sum(self._tower.extra_cost(item.grids) for item in chosen)
            cost = 1 + extra / tokens
            options = replace(submission.options, are_pictures=True, layer_share=cost)
            parts.append((numbers, Submission(options, chosen)))
        return parts

    def _assembled(
        self,
        mixed: MixedInput,
        bounds: PictureBounds,
        tokenizer: Tokenizer,
        options: TokenizeOptions,
    ) -> Encoded:
        if self.chat is None:
            (picture,) = mixed.pictures
            alone = _Assembly(tokenizer, options)
            alone.add_picture(self._tower, decode_picture(picture.data, bounds))
            return alone.encoded()
        is_own = mixed.instruction is not None
        prompt = self.chat.prefix(mixed.instruction or "") if is_own else options.prompt
        before, behind = tokenizer.special_token_frame(options)
        made = _Assembly(tokenizer, options)
        made.add_kept(before)
        text, prompt_tokens = prompt, made.count(prompt)
        for part in mixed.parts:
            if isinstance(part, str):
                text += part
                continue
            made.add_text(text, prompt_tokens)
            text, prompt_tokens = "", 0
            options.check_going_on()
            made.add_picture(self._tower, decode_picture(part.data, bounds))
        made.add_text(text, prompt_tokens)
        made.add_kept(behind)
        return made.encoded()


@dataclass(slots=True)
class _Assembly:
    """An input in the making: its tokens piece by piece, and which of them may be cut off."""

    tokenizer: Tokenizer
    options: TokenizeOptions
    pieces: list[IdArray] = field(default_factory=list)
    may_go: list[BoolArray] = field(default_factory=list)
    pixels: list[PixelArray] = field(default_factory=list)
    grids: list[PatchGrid] = field(default_factory=list)

    def count(self, text: str) -> int:
        """Return the number of a text's tokens."""
        return len(self.tokenizer.encode_plain([text], self.options)[0])

    def add_kept(self, ids: IdArray) -> None:
        """Add tokens that stay: those of a picture, or of messages."""
        self.pieces.append(ids)
        self.may_go.append(np.zeros(len(ids), bool))

    def add_picture(self, tower: PrefixTower, image: "Image") -> None:
        """Add a picture's tokens, which stay, with those around them."""
        picture = tower.read(image)
        self.add_kept(picture.ids)
        self.pixels.append(picture.patches)
        self.grids += picture.grids

    def add_text(self, text: str, prompt_tokens: int) -> None:
        """Add a text, of which the first tokens, a prompt's, stay."""
        if text:
            (ids,) = self.tokenizer.encode_plain([text], self.options)
            self.pieces.append(ids)
            self.may_go.append(np.arange(len(ids)) >= prompt_tokens)

    def encoded(self) -> Encoded:
        """Return the input, cut to the limit.

        Raises:
            InputTooLongError: It is too long, and nothing is to be cut off, or too little of it is text.
        """
        ids, options = np.concatenate(self.pieces), self.options
        excess = len(ids) - self.tokenizer.max_length(options)
        places = np.flatnonzero(np.concatenate(self.may_go))
        cuts = options.truncate in (Truncation.END, Truncation.START)
        if excess > 0 and not (cuts and excess <= len(places)):
            limit = self.tokenizer.max_length(options)
            raise InputTooLongError(got_tokens=len(ids), limit_tokens=limit, input_index=0)
        if excess > 0:
            is_start = options.truncate is Truncation.START
            ids = np.delete(ids, places[:excess] if is_start else places[-excess:])
        options.note_tokens(len(ids))
        return Encoded(
            ids,
            is_truncated=excess > 0,
            dropped_tokens=max(excess, 0),
            pixels=np.concatenate(self.pixels) if self.pixels else None,
            grids=tuple(self.grids),
        )


def _named(place: int, work: Callable[[], Result]) -> Result:
    """Do something for an input; its error names the input."""
    try:
        return work()
    except (InputError, BackendError) as error:
        error.input_index = place
        raise


def _too_large(what: str, max_bytes: int, place: int | None) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"{what} come to more than {max_bytes} bytes of pixels as this model takes them; send fewer, or smaller ones",
        param="input",
        input_index=place,
    )
