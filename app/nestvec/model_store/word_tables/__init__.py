"""Files of word vectors that other libraries write, and model folders made of them."""
