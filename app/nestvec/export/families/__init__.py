"""One file a model family, or the builder that several families share."""
