"""What all dialects share in reading a request and running it: fields, headers, token arrays, vectors as JSON."""
