"""Models and what is done with them as plain data: tables in TOML, and the one way from a table to a model."""
