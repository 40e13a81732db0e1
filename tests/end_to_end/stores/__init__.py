"""Vector stores over the whole command line; run by `make test-stores`."""
