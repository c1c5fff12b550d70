"""`gatewise lora evaluate`: compare routers on documents."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gatewise.cli.common import as_text, ends_on_interrupt, split_names
from gatewise.cli.lora_common import DtypeChoice, MissingGatesChoice, quiet, temperature_of
from gatewise.cli.streams import say
from gatewise.exceptions import InputError
from gatewise.messages import shown

__all__ = ["evaluate"]

_DEFAULT = "phatgoose,phatgoose:sequence,average_activation,arrow,uniform,merged_factors,random,base"
_READ = 4


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base: a folder of transformers, or a name.")],
    adapters: Annotated[list[Path], typer.Option(metavar="DIR", help="An adapter's folder; repeat it for the others.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help='Documents, one JSON object per line: {"text": …} or {"prompt": …, "completion": …}, each maybe with '
            'a "domain".',
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where tables and pages go.")],
    routers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Routers, separated by commas; the first is the reference of the comparisons. NAME:sequence and "
            "NAME:shared choose for sequences and for all modules; single:ADAPTER is one adapter, base none, and "
            f"oracle takes the domains for adapters. Default: {_DEFAULT}, and each adapter alone.",
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, metavar="K", help="How many adapters a token goes to.")] = 2,
    temperature: Annotated[
        float | None, typer.Option(metavar="REAL", help="By which scores are divided. Default: √d of each module.")
    ] = None,
    missing: Annotated[
        MissingGatesChoice, typer.Option(help="Where an adapter has no gate: refuse, or route by Arrow there.")
    ] = MissingGatesChoice.ERROR,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Documents of a batch.")] = 8,
    length: Annotated[int, typer.Option(min=2, metavar="N", help="The most tokens of a document.")] = 256,
    dtype: Annotated[DtypeChoice, typer.Option(help="In what the base's weights are loaded.")] = DtypeChoice.FLOAT32,
    level: Annotated[float, typer.Option(metavar="REAL", help="Probability of the intervals.")] = 0.95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if Gatewise wrote it.")] = False,
) -> None:
    """Losses of routers on the same documents, with paired intervals, as tables and pages.

    The folder gets routers.csv, domains.csv where there are domains, evaluation.json, evaluation.html, and text.html
    with the first documents coloured by adapter.
    """
    with ends_on_interrupt():
        from gatewise.files import check_new_folder, new_folder
        from gatewise.lora import evaluate as compare
        from gatewise.lora import load_and_route, read
        from gatewise.lora.data import batches_of, load_base, read_documents
        from gatewise.report import render_report

        check_new_folder(out, overwrite=overwrite)
        documents = read_documents(data)
        with quiet():
            base, tokenizer = load_base(model, dtype.value)
            coder = bool(base.config.is_encoder_decoder)
            batches = batches_of(documents, tokenizer, length=length, size=batch, encoder_decoder=coder)
            setting = {"top_k": top_k, "temperature": temperature_of(temperature), "missing": missing.value}
            routed = load_and_route(base, adapters, "uniform", **setting)
            names = split_names(routers or [_DEFAULT])
            if routers is None:
                names += [f"single:{name}" for name in routed.adapters]
            chosen = {name: _router(name) for name in names}
            domains = None if documents[0].domain is None else [str(document.domain) for document in documents]
            found = compare(routed, batches, chosen, domains=domains, progress=lambda name: say(f"evaluating {name}"))
            pages = {"evaluation.html": render_report(found)}
            readable = next((name for name in names if name != "base" and ":" not in name), None)
            if readable is not None:
                routed.with_router(readable)
                if routed.router.has_scores:
                    first = {key: value[:_READ] for key, value in batches[0].items()}
                    texts = [tokenizer.batch_decode([[token] for token in row]) for row in first["input_ids"].tolist()]
                    reading = read(routed, first, texts, None if domains is None else domains[: len(texts)])
                    pages["text.html"] = render_report(reading)
        table = found.table(level)
        with new_folder(out, overwrite=overwrite) as place:
            place.write("routers.csv", table.to_csv(index=False).encode())
            if domains is not None:
                place.write("domains.csv", found.by_domain().to_csv(index=False).encode())
            record = {
                "reference": found.reference,
                "level": level,
                "tokens": found.tokens.tolist(),
                "losses": {name: losses.tolist() for name, losses in found.losses.items()},
            }
            place.write("evaluation.json", (json.dumps(record, allow_nan=False) + "\n").encode())
            for name, page in pages.items():
                place.write(name, page.encode())
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print(as_text(str(out)))


def _router(text: str) -> Any:
    """A router from its name on the command line."""
    from gatewise.lora import Single
    from gatewise.lora.routers import ROUTERS

    name, _, more = text.partition(":")
    if name == "base" and not more:
        return text
    if name == "single":
        return Single(more)
    kind = ROUTERS[name]
    if not more:
        return name
    if more not in ("token", "sequence", "shared") or not kind.has_scores:
        raise InputError(f"{shown(text)} is no router: write NAME, NAME:sequence, NAME:shared or single:ADAPTER")
    return name, {"granularity": more}
