"""The unmodified openai client: upload, create, poll, page, download, delete, cancel; prints what the test compares."""

import io
import json
import sys
import time

import openai

count, url = int(sys.argv[1]), sys.argv[2]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="test-key", max_retries=0)
lines = [
    {
        "custom_id": f"r{n}",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {
            "model": "all-MiniLM-L6-v2",
            "input": f"record {n}",
            "dimensions": 64,
            "encoding_format": "base64",
        },
    }
    for n in range(count)
]
content = "\n".join(json.dumps(line) for line in lines).encode()
file = client.files.create(
    file=("in.jsonl", io.BytesIO(content)),
    purpose="batch",
    expires_after={"anchor": "created_at", "seconds": 3600},
)
batch = client.batches.create(
    input_file_id=file.id,
    endpoint="/v1/embeddings",
    completion_window="24h",
    metadata={"from": "the sdk"},
)
first_status = batch.status
until = time.monotonic() + 150
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    assert time.monotonic() < until, batch
    time.sleep(0.2)
    batch = client.batches.retrieve(batch.id)
output = client.files.content(batch.output_file_id).text
rows = [json.loads(line) for line in output.splitlines()]
vectors = {row["custom_id"]: row["response"]["body"]["data"][0]["embedding"] for row in rows}
for n in range(3):
    client.files.create(file=(f"{n}.jsonl", b"{}"), purpose="batch")
listed = [entry.id for entry in client.files.list(limit=2)]
deleted = client.files.delete(file.id).deleted
try:
    client.files.retrieve(file.id)
    missing = ""
except openai.NotFoundError as error:
    missing = str(error.param)
bad = client.batches.create(
    input_file_id=listed[0], endpoint="/v1/embeddings", completion_window="24h"
)
while bad.status == "validating":
    time.sleep(0.05)
    bad = client.batches.retrieve(bad.id)
print(
    json.dumps(
        {
            "first_status": first_status,
            "status": batch.status,
            "counts": batch.request_counts.model_dump(),
            "metadata": batch.metadata,
            "lines": len(rows),
            "ids": len(vectors),
            "sample": {name: vectors[name] for name in ("r0", f"r{count // 2}", f"r{count - 1}")},
            "listed": len(listed),
            "listed_once": len(set(listed)) == len(listed),
            "batches": [entry.id for entry in client.batches.list(limit=1)] == [bad.id, batch.id],
            "deleted": deleted,
            "missing": missing,
            "bad": [bad.status, bad.errors.data[0].code, bad.errors.data[0].line],
            "cancelled_after_its_end": client.batches.cancel(batch.id).status,
        }
    )
)
