"""Writers to files, one file a format: an interrupted output is gone on with, and an older one can be added to."""
