"""Writers to vector stores, one file a store, each an optional dependency."""
