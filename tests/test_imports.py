"""What importing each package loads, and what those with extras say without them; gatewise.lora has its own file."""

import json
import subprocess
import sys

import pytest

# One process for all, since each would load torch anew: what an import loads is there after those that follow it too.
SCRIPT = """
import json, sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

class Blocker:
    blocked = {"transformers", "accelerate"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

found = {}
blocker = Blocker()
sys.meta_path.insert(0, blocker)

import gatewise
assert {"GatedRegressor", "gates", "theory", "__version__"} <= set(dir(gatewise))
found["gatewise"] = loaded("torch", "pandas", "numpy", "numba")

import gatewise.nn, gatewise.nn.known
from gatewise.nn.known import described
assert len(described()) > 60
found["nn"] = loaded("numba", "pandas", "sklearn", "scipy.optimize", "gatewise.fit", "gatewise.model", "safetensors",
                     "torch._dynamo", "transformers", "accelerate")

import gatewise.early_exit, gatewise.early_exit.evaluation
found["early_exit"] = loaded("numba", "pandas", "sklearn", "scipy", "transformers", "gatewise.fit", "gatewise.model")

assert gatewise.gates.GATES["softmax"] is gatewise.SoftmaxGate
assert gatewise.datasets.names()
import gatewise.gates, gatewise.experts, gatewise.families, gatewise.model
found["model"] = loaded("numba", "llvmlite", "pandas", "sklearn")

refused = []
for missing in ("transformers", "accelerate"):
    blocker.blocked = {missing}
    try:
        import gatewise.nn.hf
    except ImportError as error:
        refused.append(str(error))
found["refused"] = refused
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_packages_are_loaded_when_they_are_used(found):
    assert found["gatewise"] == []


def test_networks_need_nothing_of_the_statistics_and_no_compiler(found):
    assert found["nn"] == []


def test_early_exits_load_what_torch_loads(found):
    assert found["early_exit"] == []


def test_parts_and_models_of_them_need_no_compiler(found):
    assert found["model"] == []


def test_without_the_extra_of_nn_hf_one_sentence_says_what_to_install(found):
    needs = "gatewise.nn.hf needs transformers and accelerate, and"
    assert found["refused"] == [
        f"{needs} {missing} is not installed: pip install 'gatewise[hf]'" for missing in ("transformers", "accelerate")
    ]
