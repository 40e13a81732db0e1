"""Long texts: our server beside sentence-transformers, llama.cpp and a candle engine, on models of real sizes."""
