"""HTTP processes and engine processes: frames over a local socket, and what outlives a killed engine process."""
