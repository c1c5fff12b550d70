"""The version, where every room may read it without importing the whole house."""

__all__ = ["__version__"]

__version__ = "0.1.0"
