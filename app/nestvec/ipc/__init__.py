"""Front and core in processes of their own: frames over a local socket, and what outlives a killed core."""
