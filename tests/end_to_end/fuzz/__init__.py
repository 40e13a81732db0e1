"""The OpenAPI document against a real server, by schemathesis."""
