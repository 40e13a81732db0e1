"""RoBERTa (arXiv:1907.11692) and what has its shape: XLM-RoBERTa (arXiv:1911.02116), CamemBERT (arXiv:1911.03894)."""

from typing import Final

from nestvec.export.families.post_norm import Family

ROBERTA: Final = Family("roberta.", positions_after_padding=True)
