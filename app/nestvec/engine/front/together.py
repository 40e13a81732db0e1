"""Waits for several pieces of work of one call, all of them or none."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

Result = TypeVar("Result")


async def all_or_none(works: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Wait for all works; where one fails, or the caller leaves, the others are cancelled, and have ended on return."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        return [task.result() for task in sorted(done, key=tasks.index)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
