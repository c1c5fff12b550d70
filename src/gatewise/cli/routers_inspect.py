"""`gatewise routers inspect`."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatewise.cli.common import as_text, ends_on_interrupt
from gatewise.exceptions import InputError, ModelFolderError

if TYPE_CHECKING:
    from torch import nn

    from gatewise.nn import RouterMonitor
    from gatewise.nn.hf.texts import TokenFile

__all__ = ["inspect"]

_SHOWN_TOKENS = 256
_FEW_TOKENS = 20


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A folder as save_pretrained writes it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Write the page, a table and metrics here.")],
    text: Annotated[
        list[Path] | None, typer.Option("--text", metavar="FILE", help="A text in UTF-8; may be repeated.")
    ] = None,
    tokens: Annotated[
        list[Path] | None,
        typer.Option(
            "--tokens",
            metavar="FILE",
            help="Token ids, for models without tokenizer: .safetensors with input_ids, or JSON with lists.",
        ),
    ] = None,
    by_domain: Annotated[
        bool, typer.Option("--by-domain", help="Each file is a domain, named as the file without its ending.")
    ] = False,
    length: Annotated[int, typer.Option("--length", min=1, metavar="N", help="Tokens of a sequence.")] = 512,
    batch: Annotated[int, typer.Option("--batch", min=1, metavar="N", help="Sequences of a call.")] = 8,
    most: Annotated[
        int, typer.Option("--most", min=1, metavar="N", help="Tokens of a file, from its beginning.")
    ] = 65536,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if Gatewise wrote it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Pass texts through a model and say which experts their tokens go to, and what is wrong with that.

    Nothing is downloaded, and no code of the model's folder is run. Writes routing.html, summary.csv and metrics.json,
    all or none.
    """
    from gatewise.files import check_new_folder

    # What would be refused at the end is refused before a model is loaded.
    check_new_folder(out, overwrite=overwrite)
    if not (text or tokens):
        raise InputError("there is nothing to pass through the model: give --text or --tokens")
    if by_domain and len([*(text or []), *(tokens or [])]) < 2:
        raise InputError("--by-domain compares files: give --text or --tokens twice or more")
    names = [path.stem for path in [*(text or []), *(tokens or [])]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if by_domain and twice is not None:
        raise InputError(f"two files are named {as_text(twice)!r}, and would be one domain: rename one")
    try:
        # It says what is not installed.
        importlib.import_module("gatewise.nn.hf")
    except ImportError as error:
        raise InputError(str(error)) from None
    with ends_on_interrupt():
        monitor, files = _watched(model, text or [], tokens or [], by_domain, length, batch, most)
        _write(monitor, out, as_text(model.name), overwrite)
    _say(monitor, files, out, as_json)


def _watched(
    folder: Path, texts: Sequence[Path], tokens: Sequence[Path], by_domain: bool, length: int, size: int, most: int
) -> tuple["RouterMonitor", list["TokenFile"]]:
    import torch

    from gatewise.nn import RouterMonitor
    from gatewise.nn.hf import load_model, load_upcycled
    from gatewise.nn.hf.loading import is_upcycled
    from gatewise.nn.hf.texts import load_tokenizer, quiet, read_text, read_tokens

    quiet()
    files = [read_tokens(path) for path in tokens]
    model = load_upcycled(folder) if is_upcycled(folder) else load_model(folder)
    _refuse_unsupported(model)
    # One more than there are files: none of them is among "others".
    monitor = RouterMonitor(model, most_domains=max(2, len(texts) + len(tokens) + 1))
    try:
        tokenizer = load_tokenizer(folder) if texts else None
    except ModelFolderError as error:
        raise ModelFolderError(f"{error} (--tokens FILE in the place of --text takes token ids)") from None
    files = [*(read_text(path, tokenizer) for path in texts), *files]
    _check_ids(model, files)
    length = min(length, _longest(model))
    try:
        with monitor, torch.inference_mode():
            for file in files:
                domain = as_text(file.domain) if by_domain else None
                for ids in file.batches(length, size, most):
                    with monitor.batch(domain=domain):
                        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        shown = files[0].sequences[0][: min(length, _SHOWN_TOKENS)]
        monitor.probe({"input_ids": shown.unsqueeze(0)}, tokens=files[0].names(shown))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the model in {folder} cannot be run on these tokens: {reason[:200]}") from None
    return monitor, files


def _refuse_unsupported(model: "nn.Module") -> None:
    """Say why routers that are known cannot be read."""
    from gatewise.nn.known import refusal_of

    for name, module in model.named_modules():
        refusal = refusal_of(module)
        if refusal is not None:
            raise InputError(f"the router {name!r}, a {type(module).__name__}, cannot be read: {refusal.reason}")


def _check_ids(model: "nn.Module", files: Sequence["TokenFile"]) -> None:
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    known = getattr(embedding, "num_embeddings", None)
    for file in files:
        largest = max(int(sequence.max()) for sequence in file.sequences)
        if known is not None and largest >= known:
            raise InputError(
                f"{as_text(file.name)} holds the token id {largest}, and the model knows {known}, from 0 on"
            )


def _longest(model: "nn.Module") -> int:
    """How many positions the model has, where its configuration says so."""
    config = getattr(model, "config", None)
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else 2**31


def _write(monitor: "RouterMonitor", out: Path, name: str, overwrite: bool) -> None:
    from gatewise.files import new_folder
    from gatewise.report import render_report

    page = render_report(monitor, title=f"Routing of {name}")
    with new_folder(out, overwrite=overwrite) as folder:
        folder.write("routing.html", page.encode("utf-8"))
        folder.write("summary.csv", monitor.summary().to_csv(lineterminator="\n").encode("utf-8"))
        folder.write("metrics.json", (json.dumps(_facts(monitor), ensure_ascii=False, indent=1) + "\n").encode("utf-8"))


def _facts(monitor: "RouterMonitor") -> dict[str, object]:
    return {
        "metrics": monitor.metrics(),
        "findings": [
            {"layer": one.layer, "kind": one.kind, "severity": one.severity, "experts": one.experts}
            | {"figures": one.figures, "sentence": one.sentence}
            for one in monitor.findings()
        ],
        "loads": {layer: monitor.counts(layer) for layer in monitor.layers},
        "domains": {
            layer: dict(zip(monitor.domains, monitor.domain_counts(layer), strict=True)) for layer in monitor.layers
        },
    }


def _say(monitor: "RouterMonitor", files: Sequence["TokenFile"], out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_facts(monitor), ensure_ascii=False, indent=1))
        return
    rows = {layer: monitor.measures(layer) for layer in monitor.layers}
    width = max(map(len, rows))
    print(f"{'router':{width}}  experts  K  tokens  load entropy  max/mean  dead")
    for layer, row in rows.items():
        print(
            f"{layer:{width}}  {row['experts']:7.0f} {row['top_k']:2.0f} {row['tokens']:7.0f} "
            f"{row['load_entropy']:13.3f} {row['max_over_mean']:9.2f} {row['dead']:5.0f}"
        )
    found = monitor.findings()
    print()
    # What is to be done is said once, after all that it is said of.
    for remedy in dict.fromkeys(finding.remedy for finding in found):
        for finding in found:
            if finding.remedy == remedy:
                print(f"{finding.severity}: {finding.message}")
        print(f"  what to do: {remedy}")
    if not found:
        print(f"all {len(rows)} routers use all of their experts")
    distinct = len({one for file in files for sequence in file.sequences for one in sequence.unique().tolist()})
    if distinct < _FEW_TOKENS:
        print(f"note: there are {distinct} different tokens only, and equal tokens tend to go to the same experts")
    print(f"\nwritten: {out}")
