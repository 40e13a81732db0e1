"""`nestvec embed --ray` and Ray's own pipelines on four nodes of this machine; run by `make test-ray`."""
