"""Durable bulk work: files and batch jobs that survive a crash. Knows no HTTP."""
