"""The vocabulary of parts: what gates, banks of experts and families say of themselves, to fits, tables and theory."""
