"""Runs what the documentation shows and compares it with what the documentation says came out.

A page is run from top to bottom in a folder of its own:

- a `python` block runs in one namespace per page; a `text` block right after it is what it printed;
- a `console` block holds `$ gatewise …` and `$ echo $?`, each followed by what it printed on both streams;
- a block with a title, like ```` ```csv title="visits.csv" ````, is written to that file; a Python file written so can
  be imported by what follows on the page;
- blocks of other kinds are not run;
- a block below the comment `<!-- slow -->` takes long: `make test-slow` runs it, and the ordinary run leaves it out.

A shown line `...` stands for any number of lines. Numbers may differ by one unit in their last printed digit, because
processors differ in the rounding of matrix products; everything else must agree to the character.

`python -m tests.docs.runner` runs all pages and writes what came out into them.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gatewise.cli import main

ROOT = Path(__file__).parents[2]
SLOW = "<!-- slow -->"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^```(?P<kind>\w+)?(?P<rest>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass
class Block:
    """A fenced block: its kind, its title if any, its text, where the text stands in the page, whether it is slow."""

    kind: str
    title: str | None
    body: str
    span: tuple[int, int]
    slow: bool


@dataclass
class Comparison:
    """What a page shows, what came out, and where in the page it stands; nowhere if nothing is shown."""

    source: str
    shown: str
    printed: str
    span: tuple[int, int] | None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(page):
        title = _TITLE.search(match["rest"])
        slow = page[: match.start()].rstrip().endswith(SLOW)
        found.append(Block(match["kind"] or "", title and title[1], match["body"], match.span("body"), slow))
    return found


def run_page(page: str, *, slow: bool = True) -> Iterator[Comparison]:
    """Run a page in the working folder, its slow blocks if asked; one comparison per shown output."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    everything = blocks(page)
    with _importable(Path.cwd()):
        for number, block in enumerate(everything):
            if block.slow and not slow:
                continue
            if block.title is not None:
                Path(block.title).write_text(block.body, encoding="utf-8")
            elif block.kind == "python":
                printed = _captured(lambda code=block.body: exec(compile(code, "<page>", "exec"), namespace))
                follower = everything[number + 1] if number + 1 < len(everything) else None
                between = "" if follower is None else page[block.span[1] : follower.span[0]]
                if follower is not None and follower.kind == "text" and re.fullmatch(r"```\s*```text\n", between):
                    yield Comparison(block.body, follower.body, printed, follower.span)
                else:
                    yield Comparison(block.body, "", printed, None)
            elif block.kind == "console":
                yield Comparison(block.body, block.body, _console(block.body), block.span)


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The Python files of a folder can be imported, and are forgotten afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").parent == folder:
                del sys.modules[name]


def agrees(shown: str, printed: str) -> bool:
    """Whether what is shown is what was printed, by the rules of this module."""
    shown_lines, printed_lines = shown.rstrip().splitlines(), printed.rstrip().splitlines()
    return _lines_agree([line.rstrip() for line in shown_lines], [line.rstrip() for line in printed_lines])


def refreshed(page: str) -> str:
    """The page with every shown output replaced by what came out, `...` lines kept where they still hold."""
    result = page
    for comparison in reversed(list(run_page(page))):
        if comparison.span is not None and not agrees(comparison.shown, comparison.printed):
            start, end = comparison.span
            result = result[:start] + comparison.printed.rstrip() + "\n" + result[end:]
    return result


def _console(body: str) -> str:
    """The block with its commands run again; what a command is shown to print stays where it agrees."""
    lines: list[str] = []
    code = 0
    for part in re.split(r"^(?=\$ )", body, flags=re.MULTILINE):
        if not part.strip():
            continue
        command, _, shown = part.partition("\n")
        words = shlex.split(command.removeprefix("$ "))
        if words[:2] == ["echo", "$?"]:
            printed = f"{code}\n"
        elif words[0] == "gatewise":
            code, printed = _run_command(words[1:])
        else:
            raise ValueError(f"a console block can run gatewise and echo $?, not {command!r}")
        lines += [command, *(shown if agrees(shown, printed) else printed).rstrip().splitlines()]
    return "\n".join(lines) + "\n"


def _run_command(arguments: list[str]) -> tuple[int, str]:
    codes: list[int] = []
    printed = _captured(lambda: codes.append(main(arguments)))
    return codes[0], printed


def _captured(run: Callable[[], object]) -> str:
    """What a call prints on both streams, in order."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        run()
    return stream.getvalue()


def _lines_agree(shown: list[str], printed: list[str]) -> bool:
    if "..." not in shown:
        return len(shown) == len(printed) and all(map(_line_agrees, shown, printed))
    gap = shown.index("...")
    before, after = shown[:gap], shown[gap + 1 :]
    if not _lines_agree(before, printed[:gap]):
        return False
    return any(_lines_agree(after, printed[start:]) for start in range(gap, len(printed) + 1))


def _line_agrees(shown: str, printed: str) -> bool:
    if shown == printed:
        return True
    numbers, others = _NUMBER.findall(shown), _NUMBER.sub("#", shown).split()
    if others != _NUMBER.sub("#", printed).split():
        return False
    return all(map(_number_agrees, numbers, _NUMBER.findall(printed)))


def _number_agrees(shown: str, printed: str) -> bool:
    mantissa, _, exponent = shown.partition("e")
    decimals = len(mantissa.partition(".")[2])
    if decimals == 0 and not exponent:
        return shown == printed
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return abs(float(shown) - float(printed)) <= 1.001 * unit


if __name__ == "__main__":
    chosen = [ROOT / name for name in sys.argv[1:]] or PAGES
    for path in chosen:
        text = path.read_text(encoding="utf-8")
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            with warnings.catch_warnings():
                new = refreshed(text)
            os.chdir(here)
        if new != text:
            path.write_text(new, encoding="utf-8")
            print("written:", path.relative_to(ROOT))
