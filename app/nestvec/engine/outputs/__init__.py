"""One file for each kind of output: how it is tokenized, checked, made of token states, and finished."""
