"""Compiled passes over the rows, from arrays to arrays."""
