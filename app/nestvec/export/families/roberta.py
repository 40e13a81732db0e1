"""RoBERTa (arXiv:1907.11692); XLM-RoBERTa (arXiv:1911.02116) and CamemBERT (arXiv:1911.03894) have the same graph."""

from typing import Final

from nestvec.export.families.post_norm import PostNormEncoder

ROBERTA: Final = PostNormEncoder("roberta.", positions_after_padding=True)
