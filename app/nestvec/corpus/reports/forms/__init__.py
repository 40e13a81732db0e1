"""Forms of vectors (layers, map, dimensions, dtype) and what each loses: for `report quality` and `nestvec quality`."""
