"""Measures how good a model's vectors are, in this process or over HTTP, and fits maps between spaces."""
