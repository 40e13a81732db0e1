"""Routes that belong to no single vendor: models, operations, reranking, rescoring, similarity."""
