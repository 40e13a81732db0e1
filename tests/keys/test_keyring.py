"""The keyring: who is let in, what is counted, and what changes while it runs."""

import os
from pathlib import Path

import pytest
from nestvec.errors import AccessError, RateLimitError
from nestvec.keys.keyring import LOOK_S, Keyring, plain_id
from nestvec.keys.records import UNLIMITED, KeyFile, KeyLimits
from nestvec.keys.usage import Usage

from tests.support.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """Seconds that move when told."""
    return FakeClock()


def make(folder: Path, clock: FakeClock, *keys: str) -> Keyring:
    """Over a file in a folder."""
    return Keyring(keys, folder / "keys.json", clock=clock, wall=clock, usage=Usage(None, clock))


def add(folder: Path, name: str = "alice", **limits: object) -> tuple[str, str]:
    """A key of the file: its id, and itself."""
    file = KeyFile.read(folder / "keys.json")
    record, key = file.add(name, KeyLimits(**limits))  # type: ignore[arg-type] # a test's own
    file.write()
    return record.id, key


def test_without_keys_everyone_is_let_in(tmp_path: Path, clock: FakeClock) -> None:
    """With whatever they send."""
    ring = make(tmp_path, clock)
    assert ring.is_open
    assert ring.enter("anything").key_id == ""
    assert ring.limits_of("gone") == UNLIMITED


def test_keys_of_settings_and_of_the_file(tmp_path: Path, clock: FakeClock) -> None:
    """Both are good, nothing else is; the ids tell them apart."""
    number, key = add(tmp_path)
    ring = make(tmp_path, clock, "plain", "plain")
    assert ring.enter("plain").key_id == plain_id("plain")
    assert ring.enter(key).key_id == number
    for wrong in ("x", key + "x", key[:-1], f"nv_{number}_", f"nv_{'0' * 12}_abc", "plaín"):
        with pytest.raises(AccessError, match="Incorrect"):
            ring.enter(wrong)
    with pytest.raises(AccessError) as caught:
        ring.enter("")
    assert caught.value.code == "missing_api_key"


def test_the_file_is_read_again_when_it_changes(tmp_path: Path, clock: FakeClock) -> None:
    """By itself; a broken one changes nothing, a revoked last key opens nothing."""
    ring = make(tmp_path, clock)
    number, key = add(tmp_path)
    clock.now_s += LOOK_S
    assert ring.enter(key).key_id == number
    assert not ring.is_open
    path = tmp_path / "keys.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    clock.now_s += LOOK_S
    assert ring.enter(key).key_id == number
    path.write_bytes(whole)
    file = KeyFile.read(path)
    file.revoke(number)
    file.write()
    os.utime(path, ns=(1, 1))
    ring.reload()
    with pytest.raises(AccessError):
        ring.enter(key)
    with pytest.raises(AccessError):
        ring.limits_of(number)
    assert not ring.is_open


def test_requests_a_second(tmp_path: Path, clock: FakeClock) -> None:
    """Refused ones are not counted as used."""
    number, key = add(tmp_path, requests_per_s=2)
    ring = make(tmp_path, clock)
    passes = [ring.enter(key) for _ in range(3)]
    for found in passes[:2]:
        ring.check_requests(found)
    with pytest.raises(RateLimitError) as caught:
        ring.check_requests(passes[2])
    error = caught.value
    assert (error.key_id, error.of, error.code) == (number, "requests", "rate_limit_exceeded")
    assert error.retry_after_s == pytest.approx(0.5)
    clock.now_s += 0.5
    ring.check_requests(ring.enter(key))


def test_slow_rates_let_the_first_request_pass(tmp_path: Path, clock: FakeClock) -> None:
    """One in ten seconds."""
    _, key = add(tmp_path, requests_per_s=0.1)
    ring = make(tmp_path, clock)
    ring.check_requests(ring.enter(key))
    with pytest.raises(RateLimitError):
        ring.check_requests(ring.enter(key))


def test_tokens_a_minute_and_a_month(tmp_path: Path, clock: FakeClock) -> None:
    """The minute's come back; a month's do not."""
    number, key = add(tmp_path, tokens_per_min=60, monthly_tokens=100)
    ring = make(tmp_path, clock)
    limits = ring.enter(key).limits
    ring.check_tokens(number, limits)
    ring.charge(number, limits, 80)
    with pytest.raises(RateLimitError) as caught:
        ring.check_tokens(number, limits)
    assert caught.value.of == "tokens"
    assert caught.value.retry_after_s == pytest.approx(21)
    clock.now_s += 21
    ring.check_tokens(number, limits)
    ring.charge(number, limits, 20)
    with pytest.raises(RateLimitError) as caught:
        ring.check_tokens(number, limits)
    assert (caught.value.of, caught.value.code) == ("quota", "insufficient_quota")
    with pytest.raises(RateLimitError):
        ring.check_month(number, limits)


def test_a_charge_without_a_key_is_none(tmp_path: Path, clock: FakeClock) -> None:
    """Where keys are not asked for."""
    ring = make(tmp_path, clock)
    ring.charge("", UNLIMITED, 10)
    assert ring.usage.tokens("") == 0
