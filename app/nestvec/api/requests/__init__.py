"""What all dialects share in reading a request: deadlines, fields, encodings, token arrays, chunking."""
