"""The HTML page on a router among LoRA adapters: a text coloured by adapter, and which module chose which."""

from dataclasses import replace

import plotly.graph_objects as go

from gatewise._version import __version__
from gatewise.exceptions import InputError
from gatewise.lora import RoutedModel
from gatewise.lora.evaluation import Evaluation
from gatewise.lora.reading import AdapterReading
from gatewise.ops.printable import printable
from gatewise.report.layout import Cell, Grid, Panel, Passage, Section, Token
from gatewise.report.palette import blank_figure, blend_with_white, expert_colour, label, name_axes
from gatewise.report.theory import TheoryPage, render_theory
from gatewise.report.write import render_report

__all__ = ["adapter_page", "evaluation_page"]

_MOST_TOKENS = 4_000
_PIXELS_PER_ROW = 16
_MOST_EXPLAINED = 3


@render_report.register
def _routed(subject: RoutedModel) -> str:
    if not isinstance(subject.reading, AdapterReading):
        raise InputError(
            "there is nothing to show yet: let the routed model read a text first, as in gatewise.lora.read(routed, "
            "batch)"
        )
    return render_theory(adapter_page(subject.reading))


@render_report.register
def _reading(subject: AdapterReading) -> str:
    return render_theory(adapter_page(subject))


@render_report.register
def _evaluation(subject: Evaluation) -> str:
    return render_theory(evaluation_page(subject))


def adapter_page(reading: AdapterReading) -> TheoryPage:
    """The page on what `gatewise.lora.read` saw."""
    weights = reading.token_weights()
    n_tokens, n_modules = len(weights), len(reading.modules)
    mean = sum(weights.values(), start=next(iter(weights.values())) * 0.0) / n_tokens
    most = int(mean.argmax())
    share = float(mean[most])
    even = 1.0 / len(reading.adapters)
    one_sided = share > 0.95 and len(reading.adapters) > 1
    return TheoryPage(
        "routing among adapters",
        f"Which adapter reads what: {', '.join(reading.adapters)}",
        f"router {reading.router}; {n_tokens} tokens, {n_modules} modules",
        "One-sided" if one_sided else "Routed",
        "caution" if one_sided else "good",
        f"{reading.adapters[most]} has the largest part, {share:.0%} of all weight; equal parts would be {even:.0%}.",
        [
            "A token's colour is the mixture of its adapters' colours, by their mean weights over all modules that "
            "read it: a faint colour is a choice that the modules do not agree on.",
            "A router gives parts to adapters; it does not say which of them would answer best.",
        ],
        [_text(reading), _modules(reading), *_domains(reading), _why(reading)],
        [("Gatewise", __version__), ("router", reading.router), ("adapters", ", ".join(reading.adapters))],
        "reading = gatewise.lora.read(routed, batch)",
    )


def _text(reading: AdapterReading) -> Section:
    weights, passages, shown = reading.token_weights(), [], 0
    for row, texts in enumerate(reading.texts):
        tokens = []
        for position, text in enumerate(texts):
            found = weights.get((row, position))
            if found is None or shown >= _MOST_TOKENS:
                continue
            shown += 1
            best = int(found.argmax())
            # From no colour, where all adapters have equal parts, to the whole one.
            strength = (float(found[best]) - 1.0 / len(found)) / max(1e-9, 1.0 - 1.0 / len(found))
            parts = ", ".join(
                f"{name} {float(weight):.2f}" for name, weight in zip(reading.adapters, found, strict=True)
            )
            colour = blend_with_white(expert_colour(best), 0.12 + 0.68 * max(0.0, strength))
            tokens.append(Token(printable(text), colour, f"{position}: {parts}"))
        if tokens:
            domain = "" if reading.domains is None else f", {reading.domains[row]}"
            passages.append(Passage(f"Row {row}{domain}", tokens))
    left = len(weights) - shown
    note = "Point at a token for its weights. " + (f"{left} more tokens are not shown." if left else "")
    swatches = [(name, expert_colour(index)) for index, name in enumerate(reading.adapters)]
    return Section(
        "text", "Text", "The text, coloured by adapter", [], note.strip(), swatches=swatches, passages=passages
    )


def _modules(reading: AdapterReading) -> Section:
    names = list(reading.modules)
    height = 120 + _PIXELS_PER_ROW * len(names)
    figure = blank_figure(height=height, legend=False)
    figure.add_trace(
        go.Heatmap(
            z=reading.module_weights().tolist(),
            x=[label(name) for name in reading.adapters],
            y=[label(name) for name in names],
            zmin=0.0,
            zmax=1.0,
            colorscale="Blues",
            colorbar={"title": {"text": "weight"}, "thickness": 12},
            hovertemplate="%{y}<br>%{x}: %{z:.2f}<extra></extra>",
        )
    )
    name_axes(figure, "adapter", "")
    figure.update_yaxes(autorange="reversed", showgrid=False, tickfont={"size": 10})
    # Over all domains.
    table = replace(reading, domains=None).table()
    columns = [("Module", False), ("Adapter", False), ("Weight", True), ("Share of tokens", True)]
    rows = [
        [Cell(str(row["name"])), Cell(str(row["adapter"])), Cell(f"{row['weight']:.3f}"), Cell(f"{row['share']:.3f}")]
        for row in table.to_dict("records")
    ]
    grid = Grid("Mean weight, and the share of tokens that chose the adapter.", columns, rows)
    panel = Panel("modules-figure", figure, "Mean weight of each adapter at each module.")
    return Section("modules", "Modules", "Modules", [panel], grids=[grid])


def _domains(reading: AdapterReading) -> list[Section]:
    if reading.domains is None:
        return []
    weights = reading.token_weights()
    names = list(dict.fromkeys(reading.domains))
    rows = []
    for name in names:
        parts = [value for (row, _), value in weights.items() if reading.domains[row] == name]
        mean = sum(parts, start=parts[0] * 0.0) / len(parts)
        rows.append([Cell(name), *(Cell(f"{float(weight):.3f}") for weight in mean)])
    grid = Grid(
        "Mean weight of each adapter over the tokens of a domain and all modules.",
        [("Domain", False), *((adapter, True) for adapter in reading.adapters)],
        rows,
    )
    return [Section("domains", "Domains", "Domains", [], grids=[grid])]


def _why(reading: AdapterReading) -> Section:
    weights = reading.token_weights()
    # The tokens with the clearest choices of different adapters.
    best: dict[int, tuple[float, tuple[int, int]]] = {}
    for key, value in weights.items():
        if key[1] >= len(reading.texts[key[0]]):
            continue
        index, strength = int(value.argmax()), float(value.max())
        if index not in best or strength > best[index][0]:
            best[index] = (strength, key)
    grids = []
    for index, (_, (row, position)) in sorted(best.items())[:_MOST_EXPLAINED]:
        table = reading.why(row, position).sort_values("weight", ascending=False).head(12)
        columns = [("Module", False), ("Adapter", False), ("Score", True), ("Weight", True)]
        rows = [
            [Cell(str(r["name"])), Cell(str(r["adapter"])), Cell(f"{r['score']:.3f}"), Cell(f"{r['weight']:.3f}")]
            for r in table.to_dict("records")
        ]
        text = printable(reading.texts[row][position]).strip()
        caption = (
            f"Why {reading.adapters[index]}: the token “{text}” at position {position} of row {row}, the modules with "
            "the largest weights."
        )
        grids.append(Grid(caption, columns, rows))
    note = "Scores of one token; those of one module can be compared, those of different modules cannot."
    return Section("why", "Why", "Why this adapter", [], note, grids=grids)


def evaluation_page(found: Evaluation) -> TheoryPage:
    """The page on what `gatewise.lora.evaluate` found."""
    records = found.table().to_dict("records")
    best = min(records, key=lambda row: row["loss"])["router"]
    columns = [
        ("Router", False),
        ("Perplexity", True),
        ("Loss per token", True),
        (f"Minus {found.reference}", True),
        ("95% interval", True),
    ]
    rows = [
        [
            Cell(str(row["router"]), strong=row["router"] == best),
            Cell(f"{row['perplexity']:.2f}"),
            Cell(f"{row['loss']:.4f}"),
            Cell("" if row["router"] == found.reference else f"{row['difference']:+.4f}"),
            Cell("" if row["router"] == found.reference else f"{row['low']:+.4f} to {row['high']:+.4f}"),
        ]
        for row in records
    ]
    caption = "Paired over documents; above 0 the router is worse than the reference."
    sections = [Section("routers", "Routers", "Routers", [], grids=[Grid(caption, columns, rows)])]
    if found.domains is not None:
        wide = found.by_domain().pivot(index="domain", columns="router", values="perplexity")[list(found.losses)]
        cells = [[Cell(str(name)), *(Cell(f"{value:.2f}") for value in row)] for name, row in wide.iterrows()]
        heads = [("Domain", False), *((name, True) for name in wide.columns)]
        sections.append(Section("domains", "Domains", "Domains", [], grids=[Grid("Perplexity.", heads, cells)]))
    others = [row for row in records if row["router"] != found.reference]
    worse, better = sum(row["low"] > 0.0 for row in others), sum(row["high"] < 0.0 for row in others)
    verdict = (
        f"Of {len(others)} others, {worse} are worse than {found.reference} and {better} are better, by intervals "
        "without 0."
    )
    n = len(found.tokens)
    return TheoryPage(
        "routers of adapters",
        "Routers among LoRA adapters",
        f"{n} documents, {int(found.tokens.sum())} tokens",
        "Compared",
        "good" if better == 0 else "caution",
        verdict,
        ["Intervals are of single comparisons; many of them together are less certain than each."],
        sections,
        [("Gatewise", __version__), ("documents", str(n))],
        "gatewise.lora.evaluate(routed, batches, routers)",
    )
