"""What `import gatewise` offers; tests/test_imports.py has what it does not load."""

import gatewise
import gatewise.io
import gatewise.theory


def test_all_that_is_listed_is_there():
    for package in (gatewise, gatewise.io, gatewise.theory):
        listed = dir(package)
        assert set(package.__all__) <= set(listed)
        assert not [name for name in listed if name.startswith("_") and not name.startswith("__")]
        assert not {"Any", "TYPE_CHECKING", "importlib"} & set(listed)
        for name in listed:
            assert getattr(package, name) is not None or name.startswith("__"), name


def test_what_is_not_there():
    for package in (gatewise, gatewise.io, gatewise.theory):
        assert not hasattr(package, "nothing")
