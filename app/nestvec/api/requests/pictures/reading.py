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
from nestvec.api.requests.encoded_picture import EncodedPicture
from nestvec.api.requests.fields import Inputs, unsupported_image
from nestvec.api.requests.headers import deadline_s
from nestvec.api.state import ApiState
from nestvec.engine.pictures.decoding import (
    PictureBounds,
    PictureHeader,
    read_header,
    require_pillow,
)
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.recipes.pictures import refuse_text_parts
from nestvec.engine.recipes.recipe_slot import RecipeSlot
from nestvec.engine.text.work_ticket import WorkTicket
from nestvec.errors import InputError

# What a call takes: inputs without base64.
CallInputs = Sequence[str | Sequence[int] | Picture]
READER: Final = PacedThread("nestvec-pictures")


@dataclass(frozen=True, slots=True)
class ReadInputs:
    """The inputs of a request as the engine takes them.

    Attributes:
        inputs: Texts, token ids and pictures, in the order of the request.
        headers: What each picture's file declares, by its index.
    """

    inputs: CallInputs
    headers: Mapping[int, PictureHeader] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """Number of pixels of all pictures."""
        return sum(header.pixels for header in self.headers.values())


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
    if EncodedPicture not in set(map(type, inputs)):
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
    if EncodedPicture not in set(map(type, inputs)):
        return ReadInputs(cast("Sequence[str | Sequence[int]]", inputs))
    pictures = {
        index: each for index, each in enumerate(inputs) if isinstance(each, EncodedPicture)
    }
    slot = state.service.models.find(model)
    readings = 1
    if isinstance(slot, RecipeSlot):
        refuse_text_parts(slot.recipe, slot.opened, next(iter(pictures)))
        readings = slot.recipe.parts_per_input
    if slot.spec is not None and slot.spec.pictures is None:
        raise unsupported_image("input", next(iter(pictures)))
    require_pillow()
    bounds = state.service.limits.pictures
    bounds.check_count(len(pictures) * readings)
    if reservation is not None:
        reservation.add(sum(each.most_bytes for each in pictures.values()))
    ticket = WorkTicket.until(latest_s, time.monotonic)
    try:
        files = await READER.run(partial(_read, pictures, bounds, ticket, readings))
    finally:
        ticket.give_up()
    items = [
        files[index][0] if isinstance(each, EncodedPicture) else each
        for index, each in enumerate(inputs)
    ]
    return ReadInputs(items, {index: header for index, (_, header) in files.items()})


def _read(
    pictures: Mapping[int, EncodedPicture],
    bounds: PictureBounds,
    ticket: WorkTicket,
    readings: int,
) -> dict[int, tuple[Picture, PictureHeader]]:
    """Decode pictures from base64, and read what their files declare, one after the other.

    Args:
        pictures: They, by their places among the inputs.
        bounds: What they may come to.
        ticket: Checked between slices.
        readings: How many models are to decode each picture.

    Raises:
        InputError: One of them cannot be read; names it.
        DeadlineError: The deadline has passed.
    """
    files: dict[int, tuple[Picture, PictureHeader]] = {}
    pixels = 0
    for index, encoded in pictures.items():
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
        files[index] = Picture(data), header
    return files
