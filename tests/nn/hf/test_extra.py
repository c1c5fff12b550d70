"""Without its extra `import gatewise.nn.hf` says what to install; `tests/nn/test_imports.py` has what is not loaded."""

import subprocess
import sys

_BLOCKED = """
import sys
blocked = {"transformers", "accelerate"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import gatewise.nn
from gatewise.nn.known import described
assert len(described()) > 60
assert not blocked & set(sys.modules)
for missing in ("transformers", "accelerate"):
    blocked = {missing}
    try:
        import gatewise.nn.hf
    except ImportError as error:
        print(error)
"""


def test_without_the_extra_one_sentence_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", _BLOCKED], capture_output=True, text=True, check=False)
    needs = "gatewise.nn.hf needs transformers and accelerate, and"
    assert done.stdout.splitlines() == [
        f"{needs} {missing} is not installed: pip install 'gatewise[hf]'" for missing in ("transformers", "accelerate")
    ], done.stderr
