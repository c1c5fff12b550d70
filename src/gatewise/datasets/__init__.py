"""Small real data sets with their sources."""

from gatewise.datasets.catalog import Dataset, csv_bytes, load, names

__all__ = ["Dataset", "csv_bytes", "load", "names"]
