"""What is made of a caller's texts and records before the tokenizer's own rules see them. Pure."""
