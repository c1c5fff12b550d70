"""Mathematics on arrays and tensors: log-space primitives, derivatives, mixtures on tensors, linear algebra."""
