"""Pictures as bodies hold them: the parts that vendors write them in, base64, and what is read of them at once."""
