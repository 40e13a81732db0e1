"""The file of keys: it holds no secret, is written whole or not at all, and is refused where it is no file of keys."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.errors import ConfigError
from nestvec.keys.records import HashedSecret, KeyFile, KeyLimits, split_key


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
