"""Traces: W3C trace context in and out, spans of requests and micro-batches, their export by OpenTelemetry's SDK."""
