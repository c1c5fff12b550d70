"""Text of the user's that cannot drive a terminal or turn a page's letters around."""

import re

__all__ = ["COMMANDS", "printable"]

# Control characters but tab and line feed, lone surrogates, marks that set the direction of the text around them, and
# separators of lines and paragraphs.
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""What is no text but a command; in a JSON string it can be written by number."""


def printable(text: str) -> str:
    r"""The text with characters that are commands written as Python writes them.

    Example:
        >>> printable("name\x1b[31m, Größe")
        'name\\x1b[31m, Größe'
    """
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)
