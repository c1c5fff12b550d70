"""What `import gatewise.lora` needs and loads."""

import json
import subprocess
import sys

import pytest

# One process for both, since each would load torch, transformers and peft anew.
SCRIPT = """
import json, sys
import gatewise
import gatewise.nn
refused = []
for package in ('transformers', 'peft'):
    sys.modules[package] = None
    try:
        import gatewise.lora
    except ImportError as error:
        refused.append([str(error), isinstance(error, gatewise.exceptions.InputError)])
    del sys.modules[package]
import gatewise.lora
loaded = [name for name in ('gatewise.fit', 'gatewise.model', 'gatewise.report') if name in sys.modules]
print(json.dumps({"refused": refused, "loaded": loaded}))
"""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_without_the_extra_it_says_what_to_install(found):
    needs = "gatewise.lora needs peft and transformers, and"
    assert found["refused"] == [
        [f"{needs} {package} is not installed: pip install 'gatewise[lora]'", True]
        for package in ("transformers", "peft")
    ]


def test_it_loads_nothing_of_the_statistics_and_nothing_private(found):
    assert found["loaded"] == []
