"""One file a dialect: it reads its vendor's bodies and writes its vendor's answers; none imports another's."""
