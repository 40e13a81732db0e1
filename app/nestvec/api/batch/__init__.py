"""Files and batches of OpenAI's API over HTTP, and how the lines of a batch are answered."""
