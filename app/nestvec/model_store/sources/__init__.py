"""Where a model's files come from: cards, wheels, folders, the Hub, adapters, merged checkpoints."""
