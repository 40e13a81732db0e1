"""`nestvec model`: lists, fetches, checks and removes models, and makes others from them."""

from nestvec.cli.model.group import command as command
