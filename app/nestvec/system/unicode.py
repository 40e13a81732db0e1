"""Repair of text that is not valid Unicode."""

import re
from typing import Final

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def replace_lone_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD: JSON can spell them, but no tokenizer or file can take them."""
    return LONE_SURROGATE.sub("\ufffd", text)
