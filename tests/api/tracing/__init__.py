"""Traces: context, what the variables ask for, spans, export."""
