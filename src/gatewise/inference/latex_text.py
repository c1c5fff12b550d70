"""Text for LaTeX: what a name or a number is between other people's commands."""

import re
import unicodedata

__all__ = ["FALLBACK", "breakable", "escaped", "mathematics", "width"]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # In the font encoding that LaTeX has without being told, these three are other signs.
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"{\ttfamily\char34}",
    "`": r"\textasciigrave{}",
    "∞": r"$\infty$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "\N{NO-BREAK SPACE}": "~",
    "°": r"$^\circ$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "÷": r"$\div$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "→": r"$\to$",
    "√": r"$\surd$",
    "²": "$^2$",
    "³": "$^3$",
    "¹": "$^1$",
    "µ": r"$\mu$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "§": r"\S{}",
    "¶": r"\P{}",
    "©": r"\copyright{}",
    "£": r"\pounds{}",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
# By their names in Unicode, which spells lambda in a way of its own.
_GREEK_CAPITALS = frozenset(["GAMMA", "DELTA", "THETA", "LAMDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA"])
_GREEK = _GREEK_CAPITALS | frozenset(
    ["ALPHA", "BETA", "EPSILON", "ZETA", "ETA", "IOTA", "KAPPA", "MU", "NU", "RHO", "TAU", "CHI"]
)
# Two of these in a row are one sign.
_LIGATURES = "-',"
# Words wider than this, in points, may end in the next line.
_LONG_WORD = 75.0
# Widths in points of Computer Modern at 10 points, of each group the largest: what fits by these fits.
_WIDTHS = (("iljft.,:;'!|()[] -rsI", 3.95), ("mwMWQ%@&", 10.3), ("+=<>~", 7.8))
_DIGIT, _SMALL, _OTHER, _CODE = 5.0, 5.6, 7.8, 40.0

FALLBACK = r"\providecommand{\gatewiseletter}[2]{\ifx\Umathchar\undefined #2\else #1\fi}"
"""Defines what stands for a letter that pdfTeX has no font for: its number there, the letter in XeTeX and LuaTeX."""


def escaped(text: str) -> str:
    r"""Text as LaTeX prints it, in any engine and font encoding.

    Letters beyond Latin and Greek are printed by XeTeX and LuaTeX, and as their numbers by pdfTeX (see `FALLBACK`).

    Example:
        >>> print(escaped("n_obs, 5 % & p<0.1"), escaped("Größe β"))
        n\_obs, 5 \% \& p$<$0.1 Gr\"{o}\ss{}e $\beta$
    """
    parts: list[str] = []
    before = ""
    flat = re.sub(r"(?<![^\s(\[])-(?=\d)", "−", " ".join(text.split()))
    for character in unicodedata.normalize("NFC", flat):
        if character == before and character in _LIGATURES:
            parts.append("{}")
        parts.append(_character(character))
        before = character
    return "".join(parts)


def _character(character: str) -> str:
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii():
        return character
    letter, *marks = unicodedata.normalize("NFD", character)
    if letter.isascii() and len(marks) == 1 and marks[0] in _ACCENTS:
        # An accent stands where the dot would be.
        bare = rf"\{letter}" if letter in "ij" else letter
        return rf"\{_ACCENTS[marks[0]]}{{{bare}}}"
    return _greek(character) or rf"\gatewiseletter{{{character}}}{{U+{ord(character):04X}}}"


def _greek(character: str) -> str | None:
    found = re.fullmatch("GREEK (SMALL|CAPITAL) LETTER (FINAL )?([A-Z]+)", unicodedata.name(character, ""))
    if found is None or found[3] not in (_GREEK if found[1] == "SMALL" else _GREEK_CAPITALS):
        return None
    name = found[3].lower() if found[1] == "SMALL" else found[3].capitalize()
    name = {"lamda": "lambda", "Lamda": "Lambda"}.get(name, name)
    return rf"$\{'var' if found[2] else ''}{name}$"


def breakable(text: str) -> str:
    r"""Escaped text in which a long word may go on in the next line: after signs, and anywhere within a longer piece.

    Example:
        >>> print(breakable("a_b"), breakable("weight_of_the_car"))
        a\_b weight\_\allowbreak{}of\_\allowbreak{}the\_\allowbreak{}car
    """
    return " ".join(_broken(word) if width(word) > _LONG_WORD else escaped(word) for word in text.split())


def _broken(word: str) -> str:
    pieces: list[str] = []
    for part in re.findall(r"[^\W_]+[\W_]*|[\W_]+", word):
        pieces.append("")
        for character in part:
            if width(part) > _LONG_WORD and width(pieces[-1] + character) > _LONG_WORD / 2.0:
                pieces.append("")
            pieces[-1] += character
    return r"\allowbreak{}".join(escaped(piece) for piece in pieces if piece)


def mathematics(cell: str) -> str:
    r"""A number's cell as LaTeX: mathematical minus signs, powers of ten, infinities; other text is escaped.

    Example:
        >>> print(mathematics("-0.25"), mathematics("<0.001"), mathematics("1.5e-09"), mathematics("–"))
        $-0.25$ $<0.001$ $1.5\times10^{-9}$ --
    """
    found = re.fullmatch(r"(<?-?\d+(?:\.\d+)?)(?:e([+-]\d+))?", cell)
    if found is None:
        return r"$-\infty$" if cell == "-∞" else escaped(cell)
    power = rf"\times10^{{{int(found[2])}}}" if found[2] else ""
    return f"${found[1]}{power}$"


def width(text: str) -> float:
    """About how wide a text is, in points, in a 10 point font: rather too wide than too narrow.

    Example:
        >>> width("0.25") < width("weight") < width("WEIGHT")
        True
    """
    return sum(_width(character) for character in unicodedata.normalize("NFC", text))


def _width(character: str) -> float:
    for characters, points in _WIDTHS:
        if character in characters:
            return points
    if character.isascii() and character.isdigit():
        return _DIGIT
    if character.islower() and character.isascii():
        return _SMALL
    return _CODE if "gatewiseletter" in _character(character) else _OTHER
