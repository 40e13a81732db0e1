"""Model packages: cards, what a folder's files say, where files come from, and the artefact cache."""
