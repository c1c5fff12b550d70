"""What `import gatewise` offers, and what it does not load."""

import subprocess
import sys

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


def test_packages_are_loaded_when_they_are_used():
    program = (
        "import sys, gatewise\n"
        "assert {'GatedRegressor', 'gates', 'theory', '__version__'} <= set(dir(gatewise))\n"
        "assert not {'torch', 'pandas', 'numpy', 'numba'} & set(sys.modules)\n"
        "assert gatewise.gates.GATES['softmax'] is gatewise.SoftmaxGate\n"
        "assert gatewise.datasets.names()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_parts_and_models_of_them_need_no_compiler():
    program = (
        "import sys, gatewise.gates, gatewise.experts, gatewise.families, gatewise.model\n"
        "assert not {'numba', 'llvmlite', 'pandas', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_not_there():
    for package in (gatewise, gatewise.io, gatewise.theory):
        assert not hasattr(package, "nothing")
