"""The engine as a Python library: no server, no process of its own, and no event loop of the caller's."""
