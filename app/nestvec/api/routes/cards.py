"""The models that have a card: what this server could serve, beside what it does."""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from nestvec.api.dialect_table import OPENAI
from nestvec.api.http.auth import authenticate
from nestvec.api.http.raw_route import RawRoute, json_response
from nestvec.api.requests.api_request import bind_dialect
from nestvec.api.schemas.cards import CARDS_DOC
from nestvec.model_store.sources.card import Card, read_cards

router = APIRouter(route_class=RawRoute, tags=[OPENAI.name])


@router.get("/v1/cards", **CARDS_DOC)
async def list_cards(request: Request) -> Response:
    """List the models that have a card, by the name that `nestvec serve --model` takes."""
    state = bind_dialect(request, OPENAI.name)
    authenticate(request, state.keys)
    # A hundred files and more, and few ask for them: read anew each time, a tenth of a second in a thread.
    rows = await asyncio.to_thread(_rows, state.options.card_dirs)
    return json_response({"object": "list", "data": rows})


def _rows(folders: tuple[Path, ...]) -> list[dict[str, Any]]:
    cards = sorted(read_cards(folders).items(), key=lambda item: item[0].casefold())
    return [_described(name, card) for name, card in cards]


def _described(name: str, card: Card) -> dict[str, Any]:
    return {
        "object": "card",
        "id": name,
        **card.as_json(),
        "description": card.description or None,
        "language_count": card.language_count or len(card.languages) or None,
    }
