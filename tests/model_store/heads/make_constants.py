"""What the late-interaction case is made with."""

COLBERT_TOKENS = 12
MARKERS = (127, 126)  # [unused…] of a query and of a document
