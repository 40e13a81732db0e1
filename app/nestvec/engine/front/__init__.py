"""The half before the core: who may call with what, and the threads that tokenize and finish."""
