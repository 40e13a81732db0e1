"""What stands behind an encoder, by a folder's own files: nothing, dense layers, a classifier, terms, token vectors."""
