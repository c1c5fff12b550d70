"""What `import gatewise.lora` needs and loads."""

import subprocess
import sys


def test_without_the_extra_it_says_what_to_install():
    script = (
        "import sys\n"
        "import gatewise\n"
        "import gatewise.nn\n"
        "for package in ('transformers', 'peft'):\n"
        "    sys.modules[package] = None\n"
        "    try:\n"
        "        import gatewise.lora\n"
        "    except ImportError as error:\n"
        "        print(error, isinstance(error, gatewise.exceptions.InputError))\n"
        "    del sys.modules[package]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    needs = "gatewise.lora needs peft and transformers, and"
    assert done.stdout.splitlines() == [
        f"{needs} {package} is not installed: pip install 'gatewise[lora]' True" for package in ("transformers", "peft")
    ]


def test_it_loads_nothing_of_the_statistics_and_nothing_private():
    script = (
        "import sys, gatewise.lora\n"
        "print([name for name in ('gatewise.fit', 'gatewise.model', 'gatewise.report') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
