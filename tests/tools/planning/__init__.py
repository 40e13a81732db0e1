"""Tests of planning: simulations on a virtual clock, and plans made with them."""
