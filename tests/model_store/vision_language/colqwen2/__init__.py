"""ColQwen2, whose token vectors of queries and of pictures are compared one by one."""
