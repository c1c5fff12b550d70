"""What `import gatewise.early_exit` loads."""

import subprocess
import sys


def test_importing_early_exits_loads_what_torch_loads():
    script = (
        "import sys, gatewise.early_exit, gatewise.early_exit.evaluation\n"
        "names = ('numba', 'pandas', 'sklearn', 'scipy', 'transformers', 'gatewise.fit', 'gatewise.model')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
