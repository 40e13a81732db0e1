"""The artefact cache: exported graphs and what is kept beside them."""
