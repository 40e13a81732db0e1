"""Text that is no valid Unicode."""

import re
from typing import Final

LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def replace_lone_surrogates(text: str) -> str:
    """Text with U+FFFD in place of lone surrogates, which JSON can spell and no tokenizer or file can take."""
    return LONE_SURROGATE.sub("\ufffd", text)
