"""The processes of a server: one for everything, or a supervisor over HTTP processes and engine processes."""
