"""Watches what the tokenizer's library is given."""

from typing import Any

import pytest
from nestvec.engine.text.tokenizer_library import GuardedLibrary
from tokenizers import Encoding


def tokenized_chars(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that fills with how many characters the library is given, call by call."""
    seen: list[int] = []

    def watch(name: str) -> None:
        method = getattr(GuardedLibrary, name)

        def watched(self: GuardedLibrary, texts: Any, **options: Any) -> list[Encoding]:
            seen.append(len(texts) if isinstance(texts, str) else sum(map(len, texts)))
            encodings: list[Encoding] = method(self, texts, **options)
            return encodings

        monkeypatch.setattr(GuardedLibrary, name, watched)

    for name in ("encode", "encode_batch", "encode_batch_fast"):
        watch(name)
    return seen
