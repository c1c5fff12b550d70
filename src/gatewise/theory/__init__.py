"""Losses between mixing measures, proved rates, identifiability, and a modulus that measures rates."""
