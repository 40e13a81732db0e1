"""The pictures of a request: from base64 to files, each looked at before anything is made of it.

Base64 keeps Python's lock, so it is decoded in slices, in one thread; only what files declare of themselves is read
here. Their pixels are decoded by the engine.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

from nestvec.api.http.body import BODY_RESERVATION
from nestvec.api.http.body_memory import BodyReservation
from nestvec.api.http.pacing import PacedThread
from nestvec.api.requests.api_request import ApiRequest
from nestvec.api.requests.embedding import until_disconnect
from nestvec.api.requests.encoded_picture import EncodedMixture, EncodedPicture
from nestvec.api.requests.fields import Inputs, unsupported_image
from nestvec.api.requests.headers import deadline_s
from nestvec.api.state import ApiState
from nestvec.engine.front.picture_inputs import one_each
from nestvec.engine.models.model_registry import ModelSlot
from nestvec.engine.pictures.decoding import (
    PictureBounds,
    PictureHeader,
    read_header,
    require_pillow,
)
from nestvec.engine.pictures.picture import MixedInput, Picture
from nestvec.engine.pictures.prefix import PrefixTower
from nestvec.engine.recipes.pictures import refuse_parts
from nestvec.engine.recipes.recipe_slot import RecipeSlot
from nestvec.engine.results import EmbedResult
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.errors import InputError

# What a call takes: inputs without base64.
CallInputs = Sequence[str | Sequence[int] | Picture | MixedInput]
ENCODED: Final = frozenset({EncodedPicture, EncodedMixture})
READER: Final = PacedThread("nestvec-pictures")


@dataclass(frozen=True, slots=True)
class ReadInputs:
    """The inputs of a request as the engine takes them.

    Attributes:
        inputs: Texts, token ids and pictures, in the order of the request.
        headers: What the files of an input's pictures declare, by the input's index.
        slot: The model that is to embed them.
    """

    inputs: CallInputs
    headers: Mapping[int, Sequence[PictureHeader]] = field(default_factory=dict)
    slot: ModelSlot | None = None

    @property
    def files(self) -> list[PictureHeader]:
        """What the files of all pictures declare, in their order."""
        return [header for of_input in self.headers.values() for header in of_input]

    @property
    def pixels(self) -> int:
        """Number of pixels of all pictures."""
        return sum(header.pixels for header in self.files)

    def picture_tokens(self, result: EmbedResult) -> int:
        """Return the number of tokens of all pictures, of an answer to these inputs.

        Where a model reads pictures among tokens, others of an input are those of its texts. Of a recipe all tokens of
        an input with a picture are counted, as its parts read it each in its own way.
        """
        spec = None if isinstance(self.slot, RecipeSlot | None) else self.slot.spec
        tower = None if spec is None else spec.pictures
        if isinstance(tower, PrefixTower):
            return sum(tower.tokens_of(header.width, header.height) for header in self.files)
        return sum(result.input_tokens[index] for index in self.headers)


async def read_inputs(
    api_request: ApiRequest, inputs: Inputs, *, name: str = "input", is_list: bool = True
) -> ReadInputs:
    """Decode the pictures of a request from base64, as `read_pictures` does; its client may leave meanwhile.

    Args:
        api_request: The request.
        inputs: As parsed from its body.
        name: The field that they came from, for errors.
        is_list: Whether they came as a list, so that an error names one of them.

    Raises:
        ClientDisconnect: The client went away.
        NestvecError: As `read_pictures` raises them.
    """
    if ENCODED.isdisjoint(map(type, inputs)):
        return ReadInputs(cast("Sequence[str | Sequence[int]]", inputs))
    request, state = api_request.request, api_request.state
    reading = read_pictures(
        state,
        api_request.model_name(),
        inputs,
        latest_s=deadline_s(request, state),
        reservation=request.scope.get(BODY_RESERVATION),
    )
    try:
        return await until_disconnect(request, reading)
    except InputError as error:
        if error.param == "input":
            error.param = name
        if not is_list:
            error.input_index = None
        raise


async def read_pictures(
    state: ApiState,
    model: str,
    inputs: Inputs,
    *,
    latest_s: float | None = None,
    reservation: BodyReservation | None = None,
) -> ReadInputs:
    """Decode the pictures among inputs from base64, and refuse what is none, or too large; others stay as they are.

    Args:
        state: The application's shared state.
        model: The name of the model that is to embed them.
        inputs: As parsed from a body.
        latest_s: Monotonic time after which nobody waits; None for never.
        reservation: What the request holds of the memory for bodies; None outside of a server.

    Raises:
        InputError: A picture cannot be read, is too large, or there are too many; names it.
        UnsupportedError: The model takes texts only, or there is no Pillow.
        QueueFullError: Other requests leave no memory for the files.
        DeadlineError: The deadline passed.
    """
    if ENCODED.isdisjoint(map(type, inputs)):
        return ReadInputs(cast("Sequence[str | Sequence[int]]", inputs))
    mixtures = {
        index: each if isinstance(each, EncodedMixture) else EncodedMixture((each,))
        for index, each in enumerate(inputs)
        if isinstance(each, EncodedPicture | EncodedMixture)
    }
    pictures = {index: each.pictures for index, each in mixtures.items() if each.pictures}
    slot = state.service.models.find(model)
    _check_model(slot, inputs, pictures)
    if pictures:
        require_pillow()
    readings = slot.recipe.parts_per_input if isinstance(slot, RecipeSlot) else 1
    bounds = state.service.limits.pictures
    bounds.check_count(sum(map(len, pictures.values())) * readings)
    if reservation is not None:
        reservation.add(sum(p.most_bytes for each in pictures.values() for p in each))
    ticket = WorkTicket.until(latest_s, time.monotonic)
    try:
        files = await READER.run(partial(_read, pictures, bounds, ticket, readings))
    finally:
        ticket.give_up()
    items: list[str | Sequence[int] | Picture | MixedInput] = []
    for index, each in enumerate(inputs):
        decoded = iter([picture for picture, _ in files.get(index, ())])
        if isinstance(each, EncodedMixture):
            parts = tuple(part if isinstance(part, str) else next(decoded) for part in each.parts)
            items.append(MixedInput(parts, each.instruction))
        else:
            items.append(next(decoded) if isinstance(each, EncodedPicture) else each)
    headers = {index: [header for _, header in each] for index, each in files.items()}
    return ReadInputs(items, headers, slot)


def _check_model(
    slot: ModelSlot, inputs: Inputs, pictures: Mapping[int, Sequence[EncodedPicture]]
) -> None:
    """Refuse pictures that a model does not take, alone or with more, where it is known what it takes.

    Raises:
        UnsupportedError: The model takes texts only, or a part of a recipe does.
        InputError: It has a tower for each of texts and pictures, or a part of a recipe has, and an input has both.
    """
    mixed = next((n for n, each in enumerate(inputs) if isinstance(each, EncodedMixture)), None)
    if isinstance(slot, RecipeSlot):
        refuse_parts(slot.recipe, slot.opened, next(iter(pictures), None), mixed)
        return
    spec = slot.spec
    if spec is None or (spec.chat is not None and (spec.pictures is not None or not pictures)):
        return
    if spec.pictures is None:
        raise unsupported_image("input", next(iter(pictures), 0))
    if mixed is not None:
        raise one_each(spec, "input", mixed)


def _read(
    pictures: Mapping[int, Sequence[EncodedPicture]],
    bounds: PictureBounds,
    ticket: WorkTicket,
    readings: int,
) -> dict[int, list[tuple[Picture, PictureHeader]]]:
    """Decode pictures from base64, and read what their files declare, one after the other.

    Args:
        pictures: Those of each input, by its place.
        bounds: What they may come to.
        ticket: Checked between slices.
        readings: How many models are to decode each picture.

    Raises:
        InputError: One of them cannot be read; names it.
        DeadlineError: The deadline has passed.
    """
    files: dict[int, list[tuple[Picture, PictureHeader]]] = {}
    pixels = 0
    for index, encoded in (
        (index, each) for index, of_input in pictures.items() for each in of_input
    ):
        try:
            data = encoded.decoded(bounds, ticket)
            header = read_header(data, bounds)
            pixels += header.pixels * readings
            bounds.check_call_pixels(pixels)
        except InputError as error:
            error.input_index = index
            raise
        except CancelledError:
            # Nobody hears of it.
            return {}
        files.setdefault(index, []).append((Picture(data), header))
    return files
