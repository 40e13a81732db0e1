"""What is read: files of texts, documents and pictures, as records."""
