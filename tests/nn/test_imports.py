"""What `import gatewise.nn` loads."""

import subprocess
import sys


def test_importing_nn_loads_nothing_of_the_statistics():
    script = (
        "import sys, gatewise.nn\n"
        "names = ('numba', 'pandas', 'sklearn', 'scipy.optimize', 'gatewise.fit', 'gatewise.model', 'safetensors')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
