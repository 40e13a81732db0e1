"""Constants of the late-interaction case."""

COLBERT_TOKENS = 12
MARKERS = (127, 126)  # [unused…] of a query and of a document
