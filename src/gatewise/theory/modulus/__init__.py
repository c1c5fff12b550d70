"""The local modulus of continuity: how slowly a displaced parameter shows in the distance between mixtures."""
