"""Files of OpenAI's API over HTTP."""

import pytest

from tests.api.applications import DAY_S, Jobs, line


async def test_a_file_can_be_stored_read_and_deleted(jobs: Jobs) -> None:
    """A file can be uploaded, described, listed, read in whole or in part, and deleted without a trace."""
    content = line("a")
    file = (await jobs.upload(content, filename="C:\\x/name.jsonl")).json()
    assert file["object"] == "file"
    assert (file["bytes"], file["filename"], file["purpose"]) == (
        len(content),
        "name.jsonl",
        "batch",
    )
    assert file["expires_at"] == file["created_at"] + 30 * DAY_S
    path = f"/v1/files/{file['id']}"
    assert (await jobs.client.get(path)).json() == file
    listed = (await jobs.client.get("/v1/files", params={"purpose": "batch"})).json()
    assert (listed["data"], listed["has_more"], listed["first_id"]) == ([file], False, file["id"])
    assert (await jobs.client.get("/v1/files?purpose=user_data")).json()["data"] == []
    assert (await jobs.client.get(f"{path}/content")).content == content
    part = await jobs.client.get(f"{path}/content", headers={"range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, content[1:4])
    deleted = await jobs.client.delete(path)
    assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
    for answer in (await jobs.client.get(path), await jobs.client.get(f"{path}/content")):
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "id"
        assert answer.json()["error"]["message"].startswith("No such File object: file-")
    assert list((jobs.folder / "parts").iterdir()) == []


@pytest.mark.parametrize(
    ("form", "status", "param"),
    [
        ({"purpose": "fine-tune"}, 400, "purpose"),
        ({"filename": "in.txt"}, 400, "file"),
        (
            {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            400,
            "expires_after.anchor",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "5"},
            400,
            "expires_after.seconds",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "x"},
            400,
            "expires_after.seconds",
        ),
    ],
)
async def test_bad_uploads(jobs: Jobs, form: dict[str, str], status: int, param: str) -> None:
    """A wrong upload is refused by the field's name, and leaves nothing on the disk."""
    answer = await jobs.upload(line("a"), **form)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert [*(jobs.folder / "parts").iterdir(), *(jobs.folder / "files").iterdir()] == []


async def test_uploads_that_are_not_forms(jobs: Jobs) -> None:
    """An empty body, JSON, a form that breaks off and one without a file are refused, and leave nothing on the disk."""
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    for body, headers in (
        (b"", {}),
        (b"{}", {"content-type": "application/json"}),
        (b"garbage", boundary),
        (head + b"half", boundary),
        (
            b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n',
            boundary,
        ),
    ):
        answer = await jobs.client.post("/v1/files", content=body, headers=headers)
        assert answer.status_code == 400, (body, answer.text)
    assert list((jobs.folder / "parts").iterdir()) == []


async def test_a_file_beyond_the_bound_is_refused(jobs: Jobs) -> None:
    """A file over the limit is refused before it is read if its length is declared, otherwise while it comes in."""
    large = b"x" * 400_000
    assert (await jobs.upload(large)).status_code == 413
    just_over = await jobs.upload(b"x" * 310_000)
    assert (just_over.status_code, just_over.json()["error"]["code"]) == (413, "body_too_large")
    assert list((jobs.folder / "parts").iterdir()) == []
