"""The parts of `make gpu-check`: parity, speed and memory on a GPU, in one run, with a report."""
