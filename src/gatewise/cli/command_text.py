"""A command as it can be given again."""

import shlex
from collections.abc import Collection
from enum import Enum
from typing import Any

import typer

from gatewise.cli.common import as_text

__all__ = ["command_text"]


def command_text(context: typer.Context, leave_out: Collection[str] = ()) -> str:
    """The command of this context as one line for a shell, with the options that were given.

    Args:
        context: of the command.
        leave_out: parameters that are not repeated.
    """
    words, data = context.command_path.split(), []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in leave_out or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        if parameter.param_type_name == "argument":
            data.append(_word(value))
        elif value is True:
            words.append(parameter.opts[0])
        else:
            for entry in value if isinstance(value, list) else [value]:
                several = [_word(part) for part in entry] if isinstance(entry, tuple) else [_word(entry)]
                option = parameter.opts[0]
                # What begins with a dash would be taken for an option.
                words += [f"{option}={several[0]}"] if several[0].startswith("-") else [option, *several]
    # The program may have been started as a module.
    words[0] = "gatewise"
    return shlex.join([*words[:2], *data, *words[2:]])


def _word(value: Any) -> str:
    return as_text(str(value.value if isinstance(value, Enum) else value))
