"""The messages in which a chat model reads a text: a system's says what is wanted, a user's is the text.

Source: the chat template of Qwen3-VL, and how Qwen3-VL-Embedding (arXiv:2601.04720) fills it.
"""

import unicodedata
from dataclasses import dataclass
from typing import Final

SYSTEM: Final = "<|im_start|>system\n"
USER: Final = "<|im_end|>\n<|im_start|>user\n"
PUNCTUATION: Final = "P"  # Unicode's general categories begin so


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """How a text is put into messages; what stands behind it is a matter of the tokenizer.

    Attributes:
        instruction: What is wanted where a call does not say.
    """

    instruction: str

    def prefix(self, instruction: str = "") -> str:
        """Return what stands before a text.

        Args:
            instruction: What is wanted of the text; a full stop is put behind it where it ends without punctuation. ""
                for the model's own.
        """
        wanted = instruction.strip()
        if wanted and not unicodedata.category(wanted[-1]).startswith(PUNCTUATION):
            wanted += "."
        return f"{SYSTEM}{wanted or self.instruction}{USER}"
