"""What `import gatewise.nn` loads."""

import subprocess
import sys


def test_importing_nn_loads_nothing_of_the_statistics_and_no_compiler():
    script = (
        "import sys, gatewise.nn, gatewise.nn.known\n"
        "names = ('numba', 'pandas', 'sklearn', 'scipy.optimize', 'gatewise.fit', 'gatewise.model', 'safetensors',\n"
        "         'torch._dynamo', 'transformers', 'accelerate')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
