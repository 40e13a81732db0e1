"""Embeds whole files of texts into files of vectors, through the same engine as the server, and reports on them."""
