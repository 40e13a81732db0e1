"""Word tables of other libraries, imported."""
