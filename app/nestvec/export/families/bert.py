"""BERT, and ELECTRA's discriminator, which is a BERT whose word embeddings may be narrower (arXiv:2003.10555)."""

from typing import Final

from nestvec.export.families.post_norm import PostNormEncoder

BERT: Final = PostNormEncoder("bert.")
ELECTRA: Final = PostNormEncoder("electra.", projects_embeddings=True)
