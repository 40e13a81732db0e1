"""BERT, and ELECTRA's discriminator, which is a BERT whose word table may be narrower (arXiv:2003.10555)."""

from typing import Final

from nestvec.export.families.post_norm import Family

BERT: Final = Family("bert.")
ELECTRA: Final = Family("electra.", projects_embeddings=True)
