"""No file outside its room knows a built-in gate, bank of experts or family by name: it asks what a part can do.

Looked at is code, not docstrings: classes of built-in parts, wherever they are used, and strings that are registered
names. A default of a parameter may name a part, for it goes to a registry. Some registered names are words of other
vocabularies too, the scores of a selection or activations: they count where they stand beside a gate, experts or a
family.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import gatewise
from gatewise.experts import EXPERTS
from gatewise.families import FAMILIES
from gatewise.gates import GATES

SOURCE = Path(gatewise.__file__).parent
ROOMS = ("gates", "experts", "families")
NAMES = {name for registry in (GATES, EXPERTS, FAMILIES) for name in registry}
CLASSES = {registry[name].__name__ for registry in (GATES, EXPERTS, FAMILIES) for name in registry}

# Registered names that also are words of other vocabularies: scores and methods of a selection in networks, schedules,
# activations, laws of inputs, kinds of columns.
OTHER_WORDS = {"softmax", "sigmoid", "top_k", "linear", "constant", "cosine", "categorical", "laplace", "callable"}

EXCEPTIONS = {
    "__init__.py": "the catalogue of what `import gatewise` offers",
    "estimators/classifier.py": "a classifier's family is the categorical one: that is what a classifier is",
}

_ENGINE = "the engine of the default model, which takes these parts alone"
_PAPERS = "what papers state of models that they name"
# Not asked yet, each with its reason; who mends one takes it off the list.
NOT_YET = {
    "fit/build.py": _ENGINE,
    "fit/gaussian_channels.py": "a compiled sweep for one density and no other",
    "io/old_fits.py": "files of before December 2026 that hold the default model alone",
    "theory/identifiability/conditions.py": _PAPERS,
    "theory/identifiability/identify.py": "a default for two-layer networks",
    "theory/identifiability/known.py": _PAPERS,
    "theory/rates.py": _PAPERS,
    "theory/voronoi/flat.py": _PAPERS,
    "theory/voronoi/models.py": _PAPERS,
    "theory/voronoi/nested.py": _PAPERS,
}


def _nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, list[ast.AST]]]:
    """Nodes with those above them, without annotations, docstrings and defaults."""

    def below(node: ast.AST, above: list[ast.AST]) -> Iterator[tuple[ast.AST, list[ast.AST]]]:
        yield node, above
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.arguments) or (
                isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            ):
                continue
            if isinstance(node, ast.AnnAssign) and isinstance(above[-1], ast.ClassDef):
                continue
            yield from below(child, [*above, node])

    yield from below(tree, [])


def _beside_a_part(above: list[ast.AST]) -> bool:
    """Whether the innermost comparison or call around a string asks for a gate, experts, a family or a part's name."""
    for node in reversed(above):
        if isinstance(node, ast.Compare | ast.Call):
            asked = node.func if isinstance(node, ast.Call) else node
            attributes = {each.attr for each in ast.walk(asked) if isinstance(each, ast.Attribute)}
            words = attributes | {each.id for each in ast.walk(asked) if isinstance(each, ast.Name)}
            parts = any(part in word for word in words for part in ("gate", "experts", "famil"))
            return "normaliser" not in words and (parts or "name" in attributes)
    return False


def _found(path: Path) -> list[str]:
    found = []
    for node, above in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id in CLASSES:
            found.append(f"{node.lineno}: {node.id}")
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.lineno}: {alias.name}" for alias in node.names if alias.name in CLASSES]
        elif isinstance(node, ast.Constant) and (
            node.value in NAMES - OTHER_WORDS or (node.value in OTHER_WORDS and _beside_a_part(above))
        ):
            found.append(f"{node.lineno}: {node.value!r}")
    return found


def test_parts_are_asked_and_not_named():
    named = {}
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).as_posix()
        if place.split("/")[0] not in ROOMS and (found := _found(path)):
            named[place] = found
    surplus = {place: found for place, found in named.items() if place not in EXCEPTIONS and place not in NOT_YET}
    assert not surplus, "\n".join(f"{place}: {', '.join(found)}" for place, found in surplus.items())
    assert len(EXCEPTIONS) <= 5
    assert EXCEPTIONS.keys() | NOT_YET.keys() <= named.keys(), "an exception that is no longer needed"
