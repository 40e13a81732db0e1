"""HTTP itself: bodies, keys, middleware, routes that take the raw request. Knows no dialect's fields."""
