"""Connections: the HTTP/1.1 protocol over uvicorn's, and what bounds those that are silent, slow, greedy or many."""
