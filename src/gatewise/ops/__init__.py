"""Array mathematics without classes of the library: log-space primitives, the fused mixture pass, linear algebra."""
