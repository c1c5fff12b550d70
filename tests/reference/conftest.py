"""The program that made the reference fits is kept as it was run; importing it changes torch's default dtype."""

collect_ignore = ["make_reference.py"]
