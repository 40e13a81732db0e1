"""ColPali."""
