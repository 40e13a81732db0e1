"""The keyring: who is let in, what is counted, and what changes while it runs."""

import json
import os
from pathlib import Path

import pytest
from nestvec.errors import AccessError, ConfigError, NotReadyError, RateLimitError
from nestvec.keys.buckets import Buckets
from nestvec.keys.key_file_watch import KeysMarker, problems_at_start
from nestvec.keys.keyring import CHECK_INTERVAL_S, Keyring, settings_key_id
from nestvec.keys.rates import KeyRates
from nestvec.keys.records import UNLIMITED, KeyFile, KeyLimits
from nestvec.keys.usage import UsageCounter

from tests.support.fakes import FakeClock

SECRET = bytes(32)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that a test moves."""
    return FakeClock()


def make(folder: Path, clock: FakeClock, *keys: str) -> Keyring:
    """A keyring over the file of keys in a folder."""
    return Keyring(
        keys,
        folder / "keys.json",
        id_secret=lambda: SECRET,
        clock=clock,
        wall_clock=clock,
        rates=KeyRates(UsageCounter(None, clock), Buckets(), clock=clock),
    )


def add(folder: Path, name: str = "alice", **limits: object) -> tuple[str, str]:
    """Add a key to the file; gives its id and the key itself."""
    file = KeyFile.read(folder / "keys.json")
    record, key = file.add(name, KeyLimits(**limits))  # type: ignore[arg-type] # a test's own
    file.write()
    return record.id, key


def test_without_keys_everyone_is_let_in(tmp_path: Path, clock: FakeClock) -> None:
    """Whatever callers send, they are let in where no key was ever made."""
    keyring = make(tmp_path, clock)
    assert keyring.is_open
    assert keyring.authenticate("anything").key_id == ""
    assert keyring.limits_of("gone") == UNLIMITED


def test_keys_of_settings_and_of_the_file(tmp_path: Path, clock: FakeClock) -> None:
    """Keys of the settings and keys of the file are accepted, nothing else is; their ids tell them apart."""
    key_id, key = add(tmp_path)
    keyring = make(tmp_path, clock, "plain", "plain")
    assert keyring.authenticate("plain").key_id == settings_key_id("plain", SECRET)
    assert keyring.authenticate(key).key_id == key_id
    for wrong in ("x", key + "x", key[:-1], f"nv_{key_id}_", f"nv_{'0' * 12}_abc", "plaín"):
        with pytest.raises(AccessError, match="Incorrect"):
            keyring.authenticate(wrong)
    with pytest.raises(AccessError) as caught:
        keyring.authenticate("")
    assert caught.value.code == "missing_api_key"


def test_the_admin_right(tmp_path: Path, clock: FakeClock) -> None:
    """Keys have the right where they were made with it, keep it over a rotation, and have it in no other way."""
    file = KeyFile.read(tmp_path / "keys.json")
    record, admin = file.add("operator", KeyLimits(), is_admin=True)
    _, plain = file.add("someone", KeyLimits())
    _, rotated = file.rotate(record.id, 60.0)
    file.write()
    keyring = make(tmp_path, clock, "a", "b")
    keyring.set_settings_keys(["a", "b"], ["b"])
    expected = {admin: True, rotated: True, plain: False, "a": False, "b": True}
    assert {key: keyring.authenticate(key).is_admin for key in expected} == expected


@pytest.mark.parametrize("value", [1, 0, "true", "", None, [], {}])
def test_a_right_that_is_no_boolean(tmp_path: Path, value: object) -> None:
    """A right of another type makes no operator: the file is refused; a file without the field gives no right."""
    path = tmp_path / "keys.json"
    add(tmp_path)
    content = json.loads(path.read_bytes())
    assert content["keys"][0].pop("is_admin") is False
    path.write_text(json.dumps(content))
    (record,) = KeyFile.read(path).records.values()
    assert not record.is_admin
    content["keys"][0]["is_admin"] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError):
        KeyFile.read(path)


def test_the_file_is_read_again_when_it_changes(tmp_path: Path, clock: FakeClock) -> None:
    """A changed file is read without a signal; a revoked last key opens nothing."""
    keyring = make(tmp_path, clock)
    key_id, key = add(tmp_path)
    clock.now_s += CHECK_INTERVAL_S
    assert keyring.authenticate(key).key_id == key_id
    assert not keyring.is_open
    path = tmp_path / "keys.json"
    file = KeyFile.read(path)
    file.revoke(key_id)
    file.write()
    os.utime(path, ns=(1, 1))
    keyring.reload()
    with pytest.raises(AccessError):
        keyring.authenticate(key)
    with pytest.raises(AccessError):
        keyring.limits_of(key_id)
    assert not keyring.is_open


def test_requests_a_second(tmp_path: Path, clock: FakeClock) -> None:
    """A request beyond the rate is refused, and not counted as used."""
    key_id, key = add(tmp_path, requests_per_s=2)
    keyring = make(tmp_path, clock)
    grants = [keyring.authenticate(key) for _ in range(3)]
    for grant in grants[:2]:
        keyring.check_requests(grant)
    with pytest.raises(RateLimitError) as caught:
        keyring.check_requests(grants[2])
    error = caught.value
    assert (error.key_id, error.of, error.code) == (key_id, "requests", "rate_limit_exceeded")
    assert error.retry_after_s == pytest.approx(0.5)
    clock.now_s += 0.5
    keyring.check_requests(keyring.authenticate(key))


def test_slow_rates_let_the_first_request_pass(tmp_path: Path, clock: FakeClock) -> None:
    """A rate of one request in ten seconds lets the first one pass."""
    _, key = add(tmp_path, requests_per_s=0.1)
    keyring = make(tmp_path, clock)
    keyring.check_requests(keyring.authenticate(key))
    with pytest.raises(RateLimitError):
        keyring.check_requests(keyring.authenticate(key))


def test_tokens_a_minute_and_a_month(tmp_path: Path, clock: FakeClock) -> None:
    """Tokens of the minute come back with time; tokens of the month do not."""
    key_id, key = add(tmp_path, tokens_per_min=60, monthly_tokens=100)
    keyring = make(tmp_path, clock)
    limits = keyring.authenticate(key).limits
    keyring.rates.check(key_id, limits)
    keyring.charge(key_id, limits, 80)
    with pytest.raises(RateLimitError) as caught:
        keyring.rates.check(key_id, limits)
    assert caught.value.of == "tokens"
    assert caught.value.retry_after_s == pytest.approx(21)
    clock.now_s += 21
    keyring.rates.check(key_id, limits)
    keyring.charge(key_id, limits, 20)
    with pytest.raises(RateLimitError) as caught:
        keyring.rates.check(key_id, limits)
    assert (caught.value.of, caught.value.code) == ("quota", "insufficient_quota")
    with pytest.raises(RateLimitError):
        keyring.check_month(key_id, limits)


def test_a_charge_without_a_key_is_none(tmp_path: Path, clock: FakeClock) -> None:
    """Nothing is counted where no key is needed."""
    keyring = make(tmp_path, clock)
    keyring.charge("", UNLIMITED, 10)
    assert keyring.usage.tokens_this_month("") == 0


def break_file(path: Path, how: str) -> None:
    """Make a file of keys one that cannot be read."""
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "unreadable":  # a folder in its place, since root reads whatever its mode is
        path.unlink()
        path.mkdir()
    else:
        contents = {
            "empty": b"",
            "truncated": whole[: len(whole) // 2],
            "version": whole.replace(b'"version": 1', b'"version": 2'),
            "field": whole.replace(b'"tokens_per_min": null', b'"tokens_per_min": 0'),
        }
        path.write_bytes(contents[how])


BREAKS = ("missing", "unreadable", "empty", "truncated", "version", "field")


@pytest.mark.parametrize("how", BREAKS)
def test_a_file_that_cannot_be_read_lets_nobody_in(
    tmp_path: Path, clock: FakeClock, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A running server lets none of its keys in, says why once, and lets them in again when the file is back."""
    key_id, key = add(tmp_path)
    path = tmp_path / "keys.json"
    whole = path.read_bytes()
    keyring = make(tmp_path, clock)
    assert keyring.authenticate(key).key_id == key_id
    break_file(path, how)
    for _ in range(3):
        clock.now_s += CHECK_INTERVAL_S
        with pytest.raises(NotReadyError) as caught:
            keyring.authenticate(key)
        assert caught.value.code == "keys_unreadable"
        with pytest.raises(AccessError):
            keyring.authenticate("")
    assert len(caplog.records) == 1
    assert str(path) in keyring.problem
    assert keyring.lets_nobody_in
    assert keyring.limits_of(key_id) == UNLIMITED  # what was let in goes on
    if path.is_dir():
        path.rmdir()
    path.write_bytes(whole)
    clock.now_s += CHECK_INTERVAL_S
    assert keyring.authenticate(key).key_id == key_id
    assert keyring.problem == ""


@pytest.mark.parametrize("how", BREAKS)
def test_a_process_that_starts_over_such_a_file_lets_nobody_in(
    tmp_path: Path, clock: FakeClock, how: str
) -> None:
    """A process that takes the place of another lets nobody in either, whichever folder could be written."""
    _, key = add(tmp_path)
    folders = (tmp_path / "file-in-the-way" / "x", tmp_path / "runtime")
    (tmp_path / "file-in-the-way").write_text("")
    first = Keyring((), tmp_path / "keys.json", marker=KeysMarker(folders))
    first.authenticate(key)
    break_file(tmp_path / "keys.json", how)
    again = Keyring((), tmp_path / "keys.json", marker=KeysMarker(folders))
    assert not again.is_open
    with pytest.raises(NotReadyError):
        again.authenticate(key)
    with pytest.raises(AccessError):
        again.authenticate("")
    with pytest.raises(NotReadyError):
        again.limits_of("abcdefabcdef")


def test_a_named_file_has_to_be_there(tmp_path: Path, clock: FakeClock) -> None:
    """Where the settings name a file that is not there, nobody is let in; a key of the settings is."""
    keyring = Keyring(["plain"], tmp_path / "keys.json", is_named=True, clock=clock)
    assert keyring.authenticate("plain").key_id
    assert not keyring.lets_nobody_in
    with pytest.raises(NotReadyError):
        keyring.authenticate("other")
    assert not Keyring((), tmp_path / "keys.json", is_named=True).is_open
    assert Keyring((), tmp_path / "keys.json").is_open


def test_a_server_does_not_start_over_such_a_file(tmp_path: Path) -> None:
    """What is wrong is told with the way out: a named file that is absent, one that was seen, a damaged one."""
    path = tmp_path / "keys.json"

    def problems(*, is_named: bool = False) -> str:
        return "; ".join(problems_at_start(path, is_named=is_named, data_dir=tmp_path))

    assert problems() == ""
    assert "nestvec keys add" in problems(is_named=True)
    add(tmp_path)
    assert problems() == problems(is_named=True) == ""
    Keyring((), path, marker=KeysMarker((tmp_path,)))
    path.unlink()
    assert str(tmp_path / "keys-required") in problems()
    path.write_text("{}")
    assert "version" in problems()
