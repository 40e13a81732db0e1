"""Tokens of a prompt are told beside the texts' where the request asked for one; else answers are as they were."""

import dataclasses
from typing import Any

import pytest

from tests.api.applications import Api, Jobs, MakeApi, line
from tests.support.served import SPEC, ServedOptions

# "query", ":".
QUERY_TOKENS = 2
ASKING: list[tuple[dict[str, Any], int]] = [
    ({"prompt_name": "query"}, QUERY_TOKENS),
    ({"input_type": "query"}, QUERY_TOKENS),
    ({"prompt": "alpha beta gamma: "}, 4),
    ({"prompt_name": "query", "output_types": ["tokens"]}, QUERY_TOKENS),
]


async def usage_of(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer's usage."""
    answer = await api.embed(body)
    assert answer.status_code == 200, answer.text
    usage: dict[str, Any] = answer.json()["usage"]
    return usage


@pytest.mark.parametrize(("asked", "tokens"), ASKING)
@pytest.mark.parametrize("pools_prompt", [True, False])
async def test_a_prompts_tokens_are_told(
    make_api: MakeApi, asked: dict[str, Any], tokens: int, *, pools_prompt: bool
) -> None:
    """Of all inputs, and among those of the whole; whether or not they are pooled."""
    api = make_api(ServedOptions(spec=dataclasses.replace(SPEC, pools_prompt=pools_prompt)))
    texts = ["alpha", "beta gamma", "red"]
    plain = await usage_of(api, {"input": texts})
    usage = await usage_of(api, {"input": texts, **asked})
    assert usage["prompt_tokens_details"] == {"instruction_tokens": 3 * tokens}
    assert usage["prompt_tokens"] == usage["total_tokens"] == plain["prompt_tokens"] + 3 * tokens


async def test_a_prompt_stands_before_each_window(api: Api) -> None:
    """So its tokens count once for each; where the text is cut it keeps its own."""
    body = {"input": "alpha " * 40, "prompt_name": "query"}
    usage = await usage_of(api, {**body, "truncate": "windows"})
    windows = usage["long_inputs"][0]["windows"]
    assert windows > 1
    assert usage["prompt_tokens_details"]["instruction_tokens"] == windows * QUERY_TOKENS
    usage = await usage_of(api, {**body, "truncate": "end"})
    assert usage["prompt_tokens_details"]["instruction_tokens"] == QUERY_TOKENS


async def test_plain_answers_are_as_they_were(make_api: MakeApi) -> None:
    """Nothing is told of a prompt that nobody asked for, be it the model's default; or of an empty one."""
    for spec in (SPEC, dataclasses.replace(SPEC, default_prompt="query")):
        api = make_api(ServedOptions(spec=spec))
        for asked in ({}, {"prompt": ""}):
            usage = await usage_of(api, {"input": ["alpha", "beta"], **asked})
            assert usage.keys() == {"prompt_tokens", "total_tokens"}


async def test_lines_of_a_batch_have_their_own(jobs: Jobs) -> None:
    """Lines that run as one call each have the number of their own texts."""
    lines = (
        line("a", "alpha", prompt_name="query")
        + line("b", ["alpha", "beta gamma"], prompt_name="query")
        + line("c", "alpha")
    )
    batch = await jobs.create(lines)
    rows = await jobs.rows((await jobs.until(batch["id"]))["output_file_id"])
    usage = {name: row["response"]["body"]["usage"] for name, row in rows.items()}
    told = {name: usage[name].get("prompt_tokens_details") for name in usage}
    assert told == {
        "a": {"instruction_tokens": QUERY_TOKENS},
        "b": {"instruction_tokens": 2 * QUERY_TOKENS},
        "c": None,
    }
