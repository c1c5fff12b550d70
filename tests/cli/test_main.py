"""The frame of the command line: help, version, usage errors, quick start."""

import subprocess
import sys

import pytest

import gatewise
from gatewise.cli import main
from gatewise.cli.common import ends_on_interrupt, split_names


def test_version(run):
    outcome = run("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"gatewise {gatewise.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_the_commands(run, arguments):
    outcome = run(*arguments)
    assert outcome.code == 0
    for command in ("fit", "predict", "datasets"):
        assert f"  {command} " in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "tone", "--target", "tuned", "--expert-count", "2"], "No such option: --expert-count"),
        (["fit", "tone"], "Missing option '--target'"),
        (["fit"], "Missing argument 'DATA'"),
        (["fit", "tone", "--target", "tuned", "--experts", "0"], "Invalid value for '--experts'"),
        (["fit", "tone", "--target", "tuned", "--experts", "two"], "Invalid value for '--experts'"),
        (["fit", "tone", "--target", "tuned", "--starts", "0"], "Invalid value for '--starts'"),
        (["fit", "tone", "--target", "tuned", "--missing", "ignore"], "Invalid value for '--missing'"),
        (["fit", "tone", "--target", "tuned", "--seed", "-1"], "Invalid value for '--seed'"),
        (["predict", "model"], "Missing argument 'DATA'"),
        (["predict", "model", "data"], "Missing option '--out'"),
        (["train"], "No such command 'train'"),
    ],
)
def test_usage_errors(run, arguments, message):
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert f"Error: {message}" in outcome.err
    assert "Traceback" not in outcome.err


def test_no_command_shows_the_help(run):
    outcome = run()
    assert outcome.code == 2
    assert "Usage: gatewise" in outcome.out + outcome.err


def test_the_module_can_be_run_as_a_script():
    script = "import sys; from gatewise.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "fit", "nowhere.csv", "--target", "y"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: there is no file nowhere.csv: check its name\n"


def test_names_that_the_terminal_cannot_show_do_not_break_the_message():
    script = (
        "import sys; from gatewise.cli import main; sys.exit(main(['fit', 'g\\u00f6ttingen.csv', '--target', 'y']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
    )
    assert done.returncode == 2
    assert done.stderr == "error: there is no file g\\xf6ttingen.csv: check its name\n"


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["a,b"], ["a", "b"]),
        (["a", "b, c"], ["a", "b", "c"]),
        (['"a,b",c'], ["a,b", "c"]),
        ([""], []),
        ([], []),
    ],
)
def test_split_names(texts, names):
    assert split_names(texts) == names


def test_an_interrupt_without_a_result_ends_with_130(capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("gatewise.io.open_table", interrupted)
    assert main(["fit", "tone", "--target", "tuned"]) == 130
    assert capsys.readouterr().err == "error: interrupted before there was a result; nothing was written\n"


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), ends_on_interrupt():
        raise ZeroDivisionError
