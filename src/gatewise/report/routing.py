"""The page on routers: what a monitor saw, and what is wrong with it."""

import math
from collections.abc import Iterator

from gatewise._version import __version__
from gatewise.exceptions import InputError
from gatewise.nn.findings import RouterFinding
from gatewise.nn.monitor import RouterMonitor
from gatewise.nn.probe import ProbedText
from gatewise.report.layout import Cell, Grid, Panel, Passage, Section, Token
from gatewise.report.palette import blend_with_white, expert_colour, expert_dash
from gatewise.report.routing_figures import heat_map, lines_panel
from gatewise.report.theory import TheoryPage, render_theory
from gatewise.report.write import render_report

__all__ = ["routing_page"]

# Beyond this a page with a heat map for each layer would be of many megabytes.
_MOST_LAYERS = 12
_LINES = 14
_SHOWN_WARNINGS = 40


@render_report.register
def _render_monitor(monitor: RouterMonitor, *, title: str = "Routing", subtitle: str = "", text_layers: int = 3) -> str:
    """The page on a `gatewise.nn.RouterMonitor`.

    Args:
        monitor: what it has seen in its window.
        title: of the page.
        subtitle: what was watched.
        text_layers: in how many layers the probed text is shown: the first, the last and those between.
    """
    return render_theory(routing_page(monitor, title, subtitle, text_layers))


def routing_page(
    monitor: RouterMonitor, title: str = "Routing", subtitle: str = "", text_layers: int = 3
) -> TheoryPage:
    """What stands on the page on a monitor.

    Raises:
        InputError: the monitor has seen nothing.

    Example:
        >>> import torch
        >>> from gatewise.nn import SparseMoE
        >>> layer = SparseMoE(8, n_experts=4, hidden=8)
        >>> with RouterMonitor(layer) as monitor:
        ...     _ = layer(torch.randn(500, 8, generator=torch.Generator().manual_seed(0)))
        >>> page = routing_page(monitor)
        >>> page.badge, [section.short for section in page.sections]
        ('Healthy', ['Loads', 'Measures'])
    """
    tokens = max(int(monitor.measures(layer)["tokens"]) for layer in monitor.layers)
    if not tokens:
        raise InputError("this monitor has seen no token: run the model within its block, and then write the page")
    findings = monitor.findings()
    badge, severity, verdict = _verdict(monitor, findings)
    remarks = [finding.sentence.replace("`", "") for finding in findings]
    if len(remarks) > _SHOWN_WARNINGS:
        remarks = [*remarks[:_SHOWN_WARNINGS], f"and {len(remarks) - _SHOWN_WARNINGS} more: monitor.findings()"]
    sections = [_loads(monitor), *_domains(monitor), *_time(monitor), *_text(monitor, text_layers), _measures(monitor)]
    return TheoryPage(
        "routers",
        title,
        subtitle or f"{_routers(len(monitor.layers))}, {tokens:,} tokens",
        badge,
        severity,
        verdict,
        remarks,
        sections,
        [
            ("Gatewise", __version__),
            ("routers", str(len(monitor.layers))),
            ("tokens", f"{tokens:,}"),
            ("steps", f"{monitor.n_steps:,}"),
        ],
        "with gatewise.nn.RouterMonitor(model) as monitor:\n    model(**batch)\n"
        'gatewise.write_report(monitor, "routing.html")',
    )


def _verdict(monitor: RouterMonitor, findings: list[RouterFinding]) -> tuple[str, str, str]:
    wrong = [finding for finding in findings if finding.severity == "warning"]
    layers = list(dict.fromkeys(finding.layer for finding in wrong))
    needing = f"{len(layers)} of {_routers(len(monitor.layers))} {'needs' if len(layers) == 1 else 'need'} attention."
    if any(finding.kind in ("collapse", "few_experts", "not_numbers") for finding in wrong):
        return "Collapsed", "severe", needing
    if wrong:
        return "Attention", "caution", needing
    if findings and all(finding.kind in ("masks", "domains") for finding in findings):
        return "Healthy, with notes", "caution", "Nothing is wrong with loads; what is noted limits what can be said."
    if findings:
        return "Too little seen", "caution", "Nothing is wrong in what was seen, and what was seen is too little."
    n = len(monitor.layers)
    verdict = f"All {n} routers use all of their experts." if n > 1 else "The router uses all of its experts."
    return "Healthy", "good", verdict


def _routers(n: int) -> str:
    return f"{n} router" if n == 1 else f"{n} routers"


def _even(counts: list[int]) -> list[float]:
    """Loads in multiples of an even share."""
    total = sum(counts)
    return [count * len(counts) / total if total else math.nan for count in counts]


def _loads(monitor: RouterMonitor) -> Section:
    table = [_even(monitor.counts(layer)) for layer in monitor.layers]
    width = max(map(len, table))
    values = [row + [math.nan] * (width - len(row)) for row in table]
    panel = heat_map(
        "figure-loads",
        "The load of every expert in every layer, in multiples of an even share: white is none, the darkest four times "
        "an even one or more.",
        values,
        monitor.layers,
        [str(expert) for expert in range(width)],
        ("expert", ""),
        largest=4.0,
        meaning="load / even",
    )
    return Section("loads", "Loads", "Loads: layer by expert", [panel])


def _domains(monitor: RouterMonitor) -> Iterator[Section]:
    if len(monitor.domains) < 2:
        return
    panels = [_domain_panel(monitor, place, layer) for place, layer in _some(monitor.layers, _MOST_LAYERS)]
    note = (
        "Where rows differ experts specialise in domains. The mutual information of expert and domain is in the table "
        "below, with the bias that a finite number of slots gives it."
    )
    if len(panels) < len(monitor.layers):
        note += f" {len(panels)} of {len(monitor.layers)} layers are shown."
    yield Section("domains", "Domains", "Domains: domain by expert", panels, note)


def _domain_panel(monitor: RouterMonitor, place: int, layer: str) -> Panel:
    table = monitor.domain_counts(layer)
    value = monitor.measures(layer)
    return heat_map(
        f"figure-domains-{place}",
        f"{layer}: the load of every expert by domain, in multiples of an even share. Mutual information "
        f"{value['mutual_information']:.4f} nats, of which about {value['mutual_information_bias']:.4f} are bias.",
        [_even(row) for row in table],
        monitor.domains,
        [str(expert) for expert in range(len(table[0]))],
        ("expert", ""),
        largest=4.0,
        meaning="load / even",
    )


def _time(monitor: RouterMonitor) -> Iterator[Section]:
    panels = [*_change_panels(monitor), *_load_panels(monitor)]
    if panels:
        yield Section("time", "Time", "Over time", panels)


def _change_panels(monitor: RouterMonitor) -> Iterator[Panel]:
    series = {layer: list(monitor.changes(layer)) for layer in monitor.layers}
    times = max(series.values(), key=len)
    if not times:
        return
    values = [
        [float(moment.value[0] / moment.value[1]) for moment in moments] + [math.nan] * (len(times) - len(moments))
        for moments in series.values()
    ]
    yield heat_map(
        "figure-changes",
        "Selection change on the probed tokens, layer by step: the share of a token's experts that are others than at "
        "the probe before.",
        values,
        monitor.layers,
        [str(moment.last) for moment in times],
        ("step", ""),
        # A probe without a token that counts has no change.
        largest=max([0.1, *(value for row in values for value in row if not math.isnan(value))]),
        meaning="changed",
    )


def _load_panels(monitor: RouterMonitor) -> Iterator[Panel]:
    lines = []
    for place, layer in _some(monitor.layers, _LINES):
        moments = [moment for moment in monitor.history(layer) if int(moment.value.sum())]
        if len(moments) < 2:
            continue
        x = [(moment.first + moment.last) / 2 for moment in moments]
        y = [float(moment.value.max()) * len(moment.value) / float(moment.value.sum()) for moment in moments]
        lines.append((layer, expert_colour(place), expert_dash(place), x, y))
    if lines:
        yield lines_panel(
            "figure-largest",
            "The largest load of each layer over the mean, by step: 1 is even.",
            lines,
            ("step", "max / mean load"),
        )


def _text(monitor: RouterMonitor, n_layers: int) -> Iterator[Section]:
    text = monitor.text
    if text is None:
        return
    layers = [layer for _, layer in _some([layer for layer in monitor.layers if layer in text.experts], n_layers)]
    if layers:
        passages = [Passage(layer, _coloured(text, layer)) for layer in layers]
        note = (
            f"{len(text.tokens)} tokens, each in the colour of the expert with the largest weight; all its experts "
            "under the pointer. Seven colours serve all experts: the number tells those of one colour apart."
        )
        yield Section("text", "Text", "Tokens and their experts", [], note, passages=passages)


def _coloured(text: ProbedText, layer: str) -> list[Token]:
    """Each token in the colour of its first expert, whose number is the mark."""
    experts = text.experts[layer].tolist()
    return [
        Token(token, blend_with_white(expert_colour(row[0]), 0.3), f"experts {', '.join(map(str, row))}", str(row[0]))
        for token, row in zip(text.tokens, experts, strict=True)
    ]


_COLUMNS = (
    ("experts", "E", "d"),
    ("top_k", "K", "d"),
    ("tokens", "Tokens", ",d"),
    ("load_entropy", "Load entropy", ".3f"),
    ("token_entropy", "Token entropy", ".3f"),
    ("max_over_mean", "Max / mean", ".2f"),
    ("busiest_quarter", "Busiest quarter", ".3f"),
    ("dead", "Dead", "d"),
    ("margin", "Margin", ".3g"),
    ("mutual_information", "Mutual information", ".4f"),
    ("mutual_information_bias", "its bias", ".4f"),
    ("selection_change", "Selection change", ".3f"),
    ("representation_collapse", "Tr(Σ_W Σ_B⁺)", ".3g"),
    ("rank_before", "Rank before", ".1f"),
    ("rank_after", "Rank after", ".1f"),
)


def _measures(monitor: RouterMonitor) -> Section:
    rows = {layer: monitor.measures(layer) for layer in monitor.layers}
    columns = [
        column for column in _COLUMNS if any(math.isfinite(row.get(column[0], math.nan)) for row in rows.values())
    ]
    grid = Grid(
        "Load entropy: H(load)/log E, 1 where even. Token entropy: mean over tokens of H(scores)/log E, how undecided "
        "the router is; it says nothing about the load. Max / mean: of the loads. Busiest quarter: the share of the "
        "slots of the E/4 busiest experts. Dead: experts with less than 5 % of an even share. Margin: the K-th less "
        "the (K + 1)-th choice score. Mutual information of expert and domain in nats.",
        [("Router", False), *((name, True) for _, name, _ in columns)],
        [
            [Cell(layer or "the router"), *(Cell(_number(row.get(key, math.nan), form)) for key, _, form in columns)]
            for layer, row in rows.items()
        ],
    )
    return Section("measures", "Measures", "Measures", [], grids=[grid])


def _number(value: float, form: str) -> str:
    if not math.isfinite(value):
        return "–"
    return format(int(value) if form.endswith("d") else value, form)


def _some(layers: list[str], most: int) -> list[tuple[int, str]]:
    """At most so many layers, evenly spaced, the first and the last among them, with their places."""
    if len(layers) <= most:
        return list(enumerate(layers))
    places = {round(place * (len(layers) - 1) / max(1, most - 1)) for place in range(most)}
    return [(place, layers[place]) for place in sorted(places)]
