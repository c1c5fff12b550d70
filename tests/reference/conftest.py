"""The programs that made the reference fits are no tests: one changes torch's default dtype, one needs statsmodels."""

collect_ignore = ["make_reference.py", "make_mnlogit_reference.py"]
