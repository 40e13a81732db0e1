"""An application whose model takes pictures: what the service is asked for can be looked at."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest
from nestvec.engine.limits import ServiceLimits
from nestvec.engine.pictures.decoding import PictureBounds
from nestvec.engine.pictures.picture import Picture
from nestvec.engine.results import EmbedResult
from nestvec.engine.types import EmbedCall
from nestvec.engine.vectors.maps import AffineMap

from tests.api.applications import Api, MakeApi
from tests.support.served import SPEC, ServedOptions

# What a picture is embedded as, and how many tokens it counts for.
STAND_IN = "red green"
PICTURE_TOKENS = 50


@dataclasses.dataclass
class PictureApi:
    """An application of a model of pictures.

    Attributes:
        api: The application.
        calls: What its service was asked for.
    """

    api: Api
    calls: list[EmbedCall] = dataclasses.field(default_factory=list)

    async def post(self, path: str, body: Any) -> Any:
        """POST a body, and return the answer's."""
        answer = await self.api.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refusal(self, path: str, body: Any) -> tuple[str, str]:
        """POST a body that is refused, and return the field and the message."""
        answer = await self.api.client.post(path, json=body)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        return error["param"] or "", error["message"]


MakePictureApi = Callable[..., PictureApi]


@pytest.fixture
def make_picture_api(make_api: MakeApi) -> MakePictureApi:
    """Build applications whose model takes pictures, by a service that embeds a text in place of each."""

    def make(
        bounds: PictureBounds | None = None,
        *,
        maps: Sequence[AffineMap] = (),
        spec_fields: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> PictureApi:
        fields = {"pictures": cast("Any", object()), **(spec_fields or {})}
        spec = dataclasses.replace(SPEC, **fields)
        limits = ServiceLimits(pictures=bounds or PictureBounds())
        options = ServedOptions(spec=spec, limits=limits, maps=tuple(maps))
        api = PictureApi(make_api(options, **settings))
        service = api.api.served.service
        embed = service.embed

        async def stand_in(call: EmbedCall) -> EmbedResult:
            api.calls.append(call)
            is_picture = [isinstance(value, Picture) for value in call.inputs]
            texts = [STAND_IN if isinstance(value, Picture) else value for value in call.inputs]
            result = await embed(dataclasses.replace(call, inputs=texts))
            counts = zip(is_picture, result.input_tokens, strict=True)
            tokens = tuple(PICTURE_TOKENS if picture else count for picture, count in counts)
            return dataclasses.replace(result, input_tokens=tokens)

        service.embed = stand_in  # type: ignore[method-assign]  # a service of pictures is none of this room's
        return api

    return make


@pytest.fixture
def pictures(make_picture_api: MakePictureApi) -> PictureApi:
    """An application with default bounds."""
    return make_picture_api()
