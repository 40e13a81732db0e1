"""Where documents are cut into chunks. Pure but for two libraries."""

from nestvec.engine.splitting.spans import Check, Span, TokenCounter, go_on
from nestvec.engine.splitting.splitter import DEFAULT_CHUNK_TOKENS, Splitter, SplitterKind

__all__ = [
    "DEFAULT_CHUNK_TOKENS",
    "Check",
    "Span",
    "Splitter",
    "SplitterKind",
    "TokenCounter",
    "go_on",
]
