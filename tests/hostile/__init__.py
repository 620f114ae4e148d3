"""A client that means harm: what it sends, how it sends it, and what it must and must not get."""
