"""Many OpenAI clients at once: URL, how many, texts of each. Prints how many finished."""

import asyncio
import json
import sys

from openai import AsyncOpenAI

PARAGRAPH = " ".join(
    ["the river carries copper letters past the winter market and its engines"] * 8
)


async def main() -> None:
    """Send all requests at once, and print how many finished."""
    url, clients, texts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

    async def embed_once(number: int) -> bool:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=5)
        inputs = [f"{number} {n} {PARAGRAPH}" for n in range(texts)]
        try:
            answer = await client.embeddings.create(model="all-MiniLM-L6-v2", input=inputs)
            return len(answer.data) == texts
        except Exception as error:  # noqa: BLE001 - whatever it is, it has not finished
            print(type(error).__name__, str(error)[:200], file=sys.stderr)
            return False
        finally:
            await client.close()

    done = await asyncio.gather(*(embed_once(number) for number in range(clients)))
    print(json.dumps({"finished": sum(done), "failed": clients - sum(done)}))


asyncio.run(main())
