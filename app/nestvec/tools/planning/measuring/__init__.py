"""Measures what a machine and a model cost: batches in this process, requests on a server of its own."""
