"""Files and batches of OpenAI's API over HTTP, and how a line of a batch is answered."""
