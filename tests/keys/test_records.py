"""The file of keys: it holds no secret, is written whole or not at all, and is refused where it is no file of keys."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.errors import ConfigError
from nestvec.keys.records import HashedSecret, KeyFile, KeyLimits, edit_key_file, split_key


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A file of keys that does not exist yet."""
    return KeyFile.read(tmp_path / "deep" / "keys.json")


def test_a_key_is_told_once_and_kept_nowhere(file: KeyFile) -> None:
    """The file holds no secret, only its owner may read it, and it is read back as it was."""
    limits = KeyLimits(("a", "b"), 2.5, 100, 10**6, is_bulk_only=True)
    record, key = file.add("alice", limits)
    file.write()
    assert key.split("_", 2)[2] not in file.path.read_text()
    assert file.path.stat().st_mode & 0o077 == 0
    again = KeyFile.read(file.path).records[record.id]
    assert again == record
    assert again.limits == limits
    key_id, secret = split_key(key)
    assert key_id == record.id
    assert again.matches(secret, 0.0)
    assert not again.matches(secret + "x", 0.0)


def test_a_rotated_key_has_two_secrets_for_a_while(file: KeyFile) -> None:
    """Both secrets are good until the old one expires."""
    record, old = file.add("alice", KeyLimits(monthly_tokens=5))
    rotated, new = file.rotate("alice", 3600)
    assert (rotated.id, rotated.limits) == (record.id, record.limits)
    later = record.created_s + 4000
    for key, at, is_good in (
        (old, record.created_s, True),
        (new, record.created_s, True),
        (old, later, False),
        (new, later, True),
    ):
        assert rotated.matches(split_key(key)[1], at) is is_good
    once_more, _ = file.rotate(record.id, 0)
    assert not once_more.matches(split_key(new)[1], later)


def test_a_revoked_key_matches_no_secret(file: KeyFile) -> None:
    """A revoked key matches no secret, and cannot be rotated."""
    record, key = file.add("alice", KeyLimits())
    assert not file.revoke(record.id).matches(split_key(key)[1], 0.0)
    with pytest.raises(ConfigError, match="revoked"):
        file.rotate(record.id, 0)


def test_names_need_not_be_unique_but_then_say_nothing(file: KeyFile) -> None:
    """A name that several keys have finds none of them."""
    file.add("bob", KeyLimits())
    file.add("bob", KeyLimits())
    with pytest.raises(ConfigError, match="several keys"):
        file.find("bob")
    with pytest.raises(ConfigError, match="no key"):
        file.find("carol")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{"id": "x"}]}',
        '{"version": 1, "keys": [{"id": "x", "name": "n", "created_s": 1, "secrets": [1]}]}',
        '{"version": 1, "keys": [{"id": "x", "name": "n", "created_s": 1, "secrets": [], "limits": {"z": 1}}]}',
        '{"version": 1, "keys": 7}',
    ],
)
def test_what_is_no_file_of_keys_is_refused(tmp_path: Path, content: str) -> None:
    """Whatever the file holds instead, the error names the setting."""
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="keys_file"):
        KeyFile.read(path)


@given(st.text())
def test_any_text_is_split_somehow(key: str) -> None:
    """Any text is split without loss; one of another form has no id."""
    key_id, secret = split_key(key)
    assert not key_id or key == f"nv_{key_id}_{secret}"
    assert key_id or secret == key


@given(st.text(), st.text())
def test_only_the_secret_itself_matches(secret: str, other: str) -> None:
    """A hashed secret matches that secret alone, whatever characters it has."""
    hashed = HashedSecret.of(secret)
    assert hashed.matches(secret, 0.0)
    is_same = secret.encode("utf-8", "replace") == other.encode("utf-8", "replace")
    assert hashed.matches(other, 0.0) is is_same
    assert json.dumps(secret) not in json.dumps(hashed.digest)


def changed(path: Path, **fields: object) -> None:
    """Write a file with one key, some of whose fields, or of its limits, are others."""
    content = json.loads(path.read_bytes())
    (row,) = content["keys"]
    for name, value in fields.items():
        (row if name in row else row["limits"])[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests_per_s", 0),
        ("requests_per_s", -1),
        ("requests_per_s", "5"),
        ("requests_per_s", 1e308),
        ("requests_per_s", float("nan")),
        ("requests_per_s", True),
        ("tokens_per_min", 0),
        ("tokens_per_min", -5),
        ("tokens_per_min", "1000"),
        ("tokens_per_min", 1.5),
        ("monthly_tokens", "1"),
        ("monthly_tokens", -1),
        ("monthly_tokens", 2**70),
        ("models", "static"),
        ("models", [1]),
        ("models", [""]),
        ("is_bulk_only", 1),
        ("name", 5),
        ("name", "a\nb"),
        ("created_s", "now"),
        ("created_s", -1),
        ("revoked_s", "yes"),
        ("revoked_s", False),
        ("is_admin", "true"),
        ("secrets", {}),
        ("secrets", [{"salt": "zz", "digest": "00" * 32}]),
        ("secrets", [{"salt": "00" * 16, "digest": "S3CRET"}]),
        ("secrets", [{"salt": "00" * 16, "digest": "00" * 32, "until_s": "S3CRET"}]),
    ],
)
def test_every_field_is_checked(file: KeyFile, field: str, value: object) -> None:
    """A wrong value is refused with the key's id and the field, and is not quoted."""
    record, _ = file.add("alice", KeyLimits())
    file.write()
    changed(file.path, **{field: value})
    with pytest.raises(ConfigError) as caught:
        KeyFile.read(file.path)
    message = caught.value.message
    if value == value:  # NaN is no JSON at all  # noqa: PLR0124
        assert f"key {record.id}: " in message
        assert field in message
    assert "S3CRET" not in message


def test_what_is_there_twice_or_unknown_is_refused(file: KeyFile) -> None:
    """Doubled ids and fields, unknown fields, and a key in place of an id: none is taken, none is quoted."""
    record, key = file.add("alice", KeyLimits())
    file.write()
    whole = file.path.read_text()
    row = json.loads(whole)["keys"][0]
    for content, expected in (
        ({"version": 1, "keys": [row, row]}, f"key {record.id}: id: it is there twice"),
        ({"version": 1, "keys": [row | {key: 1}]}, f"key {record.id}: the key has a field"),
        ({"version": 1, "keys": [row | {"limits": {"monthly_token": 5}}]}, "limits has a field"),
        ({"version": 1, "keys": [row | {"id": key}]}, "key number 1: id"),
        ({"version": 1, "keys": [key]}, "key number 1"),
        ({"version": 1, "keys": [], key: 1}, "the file has a field"),
        ({"version": True, "keys": []}, "version"),
        ({"version": 2, "keys": [7]}, "another version"),
    ):
        file.path.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=expected) as caught:
            KeyFile.read(file.path)
        assert key not in caught.value.message
    file.path.write_text(whole.replace('"name":', '"is_admin": true, "name":'))
    with pytest.raises(ConfigError, match="twice"):
        KeyFile.read(file.path)
    file.path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="damaged"):
        KeyFile.read(file.path)


@pytest.mark.process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a file system")
def test_a_key_is_revoked_on_a_full_disk(tmp_path: Path) -> None:
    """Where no byte is free, keys are revoked all the same, one after the other, and nothing else is lost."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        path = disk / "keys.json"
        with edit_key_file(path) as file:
            ids = [file.add(f"key {number}", KeyLimits())[0].id for number in range(5)]
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"x" * 512):
                pass
        for revoked in range(5):
            with edit_key_file(path) as file:
                file.revoke(ids[revoked])
            records = KeyFile.read(path).records
            assert [key for key in ids if records[key].revoked_s] == ids[: revoked + 1]
        assert sorted(entry.name for entry in disk.iterdir()) == [
            ".keys.json.lock",
            "filler",
            "keys.json",
        ]
        whole = KeyFile.read(path)
        for _ in range(30):
            whole.add("one more", KeyLimits())
        with pytest.raises(ConfigError, match="No space left"):
            whole.write()
        assert len(KeyFile.read(path).records) == 5
    finally:
        subprocess.run(["umount", str(disk)], check=True)
