"""Draws what routers among adapters gained: `python docs/pictures/adapters.py` writes adapters.svg here.

The figures are those of the table on the page "Which router for adapters": means over five seeds, and 95 % intervals of
the differences, paired over seeds.
"""

from draw import INK, MUTED, plt, save

from gatewise.report.palette import expert_colour

# Router, then minus PHATGOOSE by tokens with its interval: one task in a sequence, two tasks in a sequence.
ROWS = [
    ("all tasks together", (6.0, 0.5, 11.5), (3.3, 0.1, 6.6)),
    ("one choice for all modules", (3.2, 0.2, 6.2), (2.0, -0.4, 4.4)),
    ("one choice for a sequence", (1.9, -0.9, 4.8), (-2.0, -4.7, 0.7)),
    ("average activation", (-0.6, -2.2, 1.1), (-0.4, -1.6, 0.9)),
    ("one adapter for a token", (-2.1, -4.5, 0.3), (-2.3, -4.4, -0.2)),
    ("uniform", (-2.4, -4.1, -0.6), (-0.8, -2.9, 1.2)),
    ("merged factors", (-5.5, -8.7, -2.2), (-4.1, -7.7, -0.6)),
    ("random", (-5.9, -7.1, -4.8), (-4.8, -6.5, -3.2)),
    ("Arrow", (-7.9, -10.1, -5.6), (-7.7, -9.9, -5.5)),
    ("base", (-11.0, -14.7, -7.4), (-10.0, -14.0, -6.0)),
]


def adapters():
    """The differences with their intervals, router by router."""
    figure, panels = plt.subplots(1, 2, sharey=True, figsize=(8.4, 3.8))
    places = range(len(ROWS), 0, -1)
    titles = ("(a) one task in a sequence", "(b) two tasks in a sequence")
    for test, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for place, row in zip(places, ROWS, strict=True):
            middle, low, high = row[1 + test]
            axes.plot([low, high], [place, place], color=expert_colour(test), lw=2.0)
            axes.plot(middle, place, "o", color=INK, ms=4)
        axes.axvline(0.0, color=MUTED, lw=0.8, ls=":", zorder=0)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("points of accuracy more than PHATGOOSE")
    panels[0].set_yticks(list(places), [row[0] for row in ROWS])
    save(figure, "adapters")


if __name__ == "__main__":
    adapters()
