"""The wrapper that teams write themselves, tuned: FastAPI around sentence-transformers, in OpenAI's format.

Threads and batch size are at their best, one model call runs at a time (torch uses all cores by itself), with orjson
and base64.
Run in the peers' venv: `python fastapi_app.py FOLDER PORT THREADS`.
"""

import asyncio
import base64
import os
import sys
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import orjson
import sentence_transformers
import torch
import uvicorn
from fastapi import FastAPI, Request, Response

BATCH = 32

folder, port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
model = sentence_transformers.SentenceTransformer(folder, device="cpu")
app = FastAPI()
lock = asyncio.Lock()


@app.post("/v1/embeddings")
async def embeddings(request: Request) -> Response:
    """Embed a request's texts and answer."""
    body: dict[str, Any] = orjson.loads(await request.body())
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    async with lock:
        vectors = await asyncio.to_thread(
            model.encode,
            texts,
            batch_size=BATCH,
            show_progress_bar=False,
            normalize_embeddings=True,
        )
    is_base64 = body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.tobytes()).decode() if is_base64 else vector,
        }
        for index, vector in enumerate(vectors)
    ]
    answer = {"object": "list", "model": body.get("model", ""), "data": data, "usage": {}}
    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer that the server is up."""
    return {"status": "ok"}


uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
