"""`gatewise routers upcycle`."""

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gatewise.cli.common import as_text, ends_on_interrupt, parse_options
from gatewise.cli.lora_common import quiet
from gatewise.exceptions import InputError

__all__ = ["upcycle"]


def upcycle(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A dense model, as save_pretrained writes it.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Write the sparse model here.")],
    experts: Annotated[int, typer.Option("--experts", metavar="E", help="Experts of each layer.")] = 8,
    router: Annotated[str, typer.Option("--router", metavar="GATE", help="The gate that routes.")] = "softmax",
    router_option: Annotated[
        list[str] | None, typer.Option("--router-option", metavar="NAME=VALUE", help="Of the gate; may be repeated.")
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", metavar="K", help="Experts of each token; two, or what the gate keeps, by default."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="LAYERS",
            help="Numbers as 4,8,12; a slice as 1::2; names with *; or 'every second'. All by default.",
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option("--noise", metavar="S", help="Noise on the copies, in standard deviations of the weights.")
    ] = 0.0,
    correction_bias: Annotated[
        bool, typer.Option("--correction-bias", help="Give routers a bias by which they can be balanced.")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, metavar="N", help="Of the routers' start and the noise.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if Gatewise wrote it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make layers of equal experts of a dense model's MLPs: what the model gives is the same before it is trained on.

    Nothing is downloaded, and no code of the model's folder is run. The tokenizer goes along, if there is one.
    """
    from gatewise.files import check_new_folder

    # What would be refused at the end is refused before a model is loaded.
    check_new_folder(out, overwrite=overwrite)
    wanted = _layers(layers)
    options = parse_options("--router-option", router_option)
    try:
        # It says what is not installed.
        importlib.import_module("gatewise.nn.hf")
    except ImportError as error:
        raise InputError(str(error)) from None
    import torch

    from gatewise.nn import Selection
    from gatewise.nn.hf import load_model, save_upcycled
    from gatewise.nn.hf import upcycle as make_sparse
    from gatewise.nn.hf.texts import has_tokenizer, load_tokenizer

    selection = None if top_k is None else Selection(top_k=top_k)
    with ends_on_interrupt(), quiet():
        dense = load_model(model)
        tokenizer = load_tokenizer(model) if has_tokenizer(model) else None
        before = sum(value.numel() for value in dense.parameters())
        generator = torch.Generator().manual_seed(seed)
        made = make_sparse(
            dense, experts, as_text(router), wanted, noise,
            selection=selection, gate_options=options, correction_bias=correction_bias, generator=generator,
        )  # fmt: skip
        after = sum(value.numel() for value in dense.parameters())
        save_upcycled(dense, out, tokenizer=tokenizer, overwrite=overwrite)
    if as_json:
        facts = {"layers": made.names, "experts": experts, "exact": made.exact, "parameters": [before, after]}
        print(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    print(made)
    print(f"parameters: {before:,} before, {after:,} now")
    print(f"\nwritten: {out}")


def _layers(text: str | None) -> Any:
    """What `upcycle` takes for the option's text: numbers and names, a slice, words, or None.

    Raises:
        InputError: it is empty, or no slice.
    """
    if text is None:
        return None
    text = as_text(text).strip()
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(f"--layers must be written as 4,8,12, as 1::2 or as a name with *, not {text!r}")
    if ":" in text:
        try:
            return slice(*(int(part) if part else None for part in text.split(":")))
        except (ValueError, TypeError):
            raise InputError(f"--layers {text!r} is no slice: write it as BEGIN:END:STEP, such as 1::2") from None
    if len(parts) == 1 and not parts[0].isdecimal():
        return parts[0]
    return [int(part) if part.isdecimal() else part for part in parts]
