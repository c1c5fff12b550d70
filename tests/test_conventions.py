"""What holds in all of the library's words and defaults."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import gatewise
from gatewise.cli.words import OPTIONS, with_options

SOURCES = Path(gatewise.__file__).parent
# A command of another program is written out as it is typed.
OTHER_PROGRAMS = re.compile(r"`dask [^`]*`")
OPTION = re.compile(r"(?<![\w-])--[a-z]")


def strings(tree):
    """All pieces of text in a module that are no docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documented = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, holders) if is_text(node.body)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node


def is_text(body):
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def test_only_the_command_line_speaks_of_its_options():
    found = [
        f"{path.relative_to(SOURCES)}:{node.lineno}: {node.value}"
        for path in sorted(SOURCES.rglob("*.py"))
        if "cli" not in path.parts
        for node in strings(ast.parse(path.read_text(encoding="utf-8")))
        if OPTION.search(OTHER_PROGRAMS.sub("", node.value))
    ]
    assert found == []


def test_the_search_for_options_finds_them():
    tree = ast.parse('def f(x):\n    """See --there."""\n    raise ValueError(f"set --here {x}")')
    assert [node.value for node in strings(tree) if OPTION.search(node.value)] == ["set --here "]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('out with missing="drop"', "out with --missing drop"),
        ("set a ridge (gate_ridge=1).", "set a ridge (--gate-ridge 1)."),
        ("set scale_floor=1e-05 to run", "set --scale-floor 1e-05 to run"),
        ("allow overwriting (overwrite=True)", "allow overwriting (--overwrite)"),
        ("encoding='latin-1'; or n_starts=2000, fewer", "--encoding latin-1; or --starts 2000, fewer"),
        ("the column 'my_tol=3' and tolerance=1", "the column 'my_tol=3' and tolerance=1"),
    ],
)
def test_arguments_become_options(said, expected):
    assert with_options(said) == expected


def test_every_option_is_one_of_the_commands():
    known = set()
    for path in (SOURCES / "cli").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        known |= set(re.findall(r'"(--[a-z-]+)"', text))
        # Typer makes an option of the parameter's name where none is given.
        known |= {f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+): Annotated\[", text, re.MULTILINE)}
    assert set(OPTIONS.values()) <= known


def functions():
    """All functions and methods of the library, by name."""
    for module in pkgutil.walk_packages([str(SOURCES)], "gatewise."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if getattr(value, "__module__", None) != module.name:
                continue
            if inspect.isfunction(value):
                yield f"{module.name}.{name}", value
            elif inspect.isclass(value):
                yield from (
                    (f"{module.name}.{name}.{method}", function)
                    for method, function in vars(value).items()
                    if inspect.isfunction(function)
                )


def test_intervals_have_one_default_level():
    defaults = {}
    for name, function in functions():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name == "level" and parameter.default is not parameter.empty:
                defaults[name] = parameter.default
    assert len(defaults) > 10
    # A look at ranks of a table asks for another kind of level.
    assert {name: level for name, level in defaults.items() if level != 0.95} == {}
