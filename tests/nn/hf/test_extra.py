import subprocess
import sys

import pytest

_BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import gatewise.nn
from gatewise.nn.known import described
assert len(described()) > 60
try:
    import gatewise.nn.hf
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("missing", ["transformers", "accelerate"])
def test_without_the_extra_one_sentence_says_what_to_install(missing):
    done = subprocess.run(
        [sys.executable, "-c", _BLOCKED.format(missing=missing)], capture_output=True, text=True, check=False
    )
    sentence = f"gatewise.nn.hf needs transformers and accelerate, and {missing} is not installed"
    assert done.stdout == f"{sentence}: pip install 'gatewise[hf]'\n", done.stderr


def test_importing_gatewise_and_the_table_does_not_import_transformers():
    code = "import sys, gatewise.nn, gatewise.nn.known; assert not {'transformers', 'accelerate'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
