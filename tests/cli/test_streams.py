"""Whatever the standard streams are, and whatever an argument's bytes, a command ends with its own exit code."""

import os
import subprocess
import sys

import numpy as np
import pytest

_RUN = "import sys; from gatewise.cli import main; sys.exit(main(sys.argv[1:]))"
linux = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device /dev/full")


def shell(arguments, redirection="", **environment):
    """The command in a shell, with its streams redirected: exit code, standard output and error."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {arguments} {redirection}', sys.executable, _RUN],
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@linux
@pytest.mark.parametrize("arguments", ["--help", "--version", "datasets"])
def test_a_full_standard_output_is_said(arguments):
    code, _, err = shell(arguments, "> /dev/full")
    assert (code, err) == (2, "error: the output cannot be written: no space left on device\n")


@linux
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- >&- <&-"])
@pytest.mark.parametrize("arguments", ["datasets iris", "datasets --nonsense"])
def test_a_refusal_without_a_standard_error(arguments, redirection):
    assert shell(arguments, redirection) == (2, "", "")


def test_nothing_to_write_to():
    assert shell("datasets tone", ">&- 2>&-") == (0, "", "")


def test_a_reader_that_has_gone():
    done = subprocess.run(
        ["sh", "-c", '("$0" -c "$1" datasets; echo "$?" >&2) | true', sys.executable, _RUN],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr in ("0\n", "1\n")


@pytest.mark.parametrize(
    ("name", "environment", "shown"),
    [
        pytest.param(b"gr\xff.csv", {}, "gr\\xff.csv", marks=pytest.mark.slow),
        ("größe.csv".encode(), {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "größe.csv"),
    ],
    ids=["no UTF-8", "a locale without it"],
)
def test_paths_and_columns_that_the_locale_cannot_say(tmp_path, name, environment, shown):
    generator = np.random.default_rng(0)
    lines = [f"{x},{x + e}" for x, e in generator.normal(size=(40, 2))]
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        file.write(("größe,länge\n" + "\n".join(lines) + "\n").encode())
    options = ["--target", "länge".encode(), "--features", "größe".encode(), "--experts", "1", "--out", "out"]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, "fit", name, *options],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"40 rows of {shown}" in page
    assert "länge from größe" in page
