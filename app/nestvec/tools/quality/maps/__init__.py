"""Maps between spaces of vectors: how they are fitted and what they lose."""
