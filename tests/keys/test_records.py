"""The file of keys: secrets are nowhere, changes are whole, what is no file of keys is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nestvec.errors import ConfigError
from nestvec.keys.records import KeyFile, KeyLimits, Secret, split_key


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A new one."""
    return KeyFile.read(tmp_path / "deep" / "keys.json")


def test_a_key_is_told_once_and_kept_nowhere(file: KeyFile) -> None:
    """Only its owner may read even the digests."""
    limits = KeyLimits(("a", "b"), 2.5, 100, 10**6, is_bulk_only=True)
    record, key = file.add("alice", limits)
    file.write()
    assert key.split("_", 2)[2] not in file.path.read_text()
    assert file.path.stat().st_mode & 0o077 == 0
    again = KeyFile.read(file.path).records[record.id]
    assert again == record
    assert again.limits == limits
    number, secret = split_key(key)
    assert number == record.id
    assert again.matches(secret, 0.0)
    assert not again.matches(secret + "x", 0.0)


def test_a_rotated_key_has_two_secrets_for_a_while(file: KeyFile) -> None:
    """Then one."""
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


def test_a_revoked_key_is_good_no_more(file: KeyFile) -> None:
    """And cannot be rotated back."""
    record, key = file.add("alice", KeyLimits())
    assert not file.revoke(record.id).matches(split_key(key)[1], 0.0)
    with pytest.raises(ConfigError, match="revoked"):
        file.rotate(record.id, 0)


def test_names_need_not_be_unique_but_then_say_nothing(file: KeyFile) -> None:
    """The id does."""
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
    """By name, without quoting it."""
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="keys_file"):
        KeyFile.read(path)


@given(st.text())
def test_any_text_is_split_somehow(given_key: str) -> None:
    """A key of another form has no id."""
    number, secret = split_key(given_key)
    assert not number or given_key == f"nv_{number}_{secret}"
    assert number or secret == given_key


@given(st.text(), st.text())
def test_only_the_secret_itself_matches(one: str, other: str) -> None:
    """Whatever characters it has."""
    kept = Secret.of(one)
    assert kept.matches(one, 0.0)
    is_same = one.encode("utf-8", "replace") == other.encode("utf-8", "replace")
    assert kept.matches(other, 0.0) is is_same
    assert json.dumps(one) not in json.dumps(kept.digest)
