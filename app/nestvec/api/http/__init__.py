"""HTTP itself: bodies, keys, routes that take the raw request. Nothing here knows a dialect's fields."""
