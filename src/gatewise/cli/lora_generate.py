"""`gatewise lora generate`: text from a model with routed adapters."""

from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.common import as_text, ends_on_interrupt
from gatewise.cli.lora_common import DtypeChoice, GranularityChoice, MissingGatesChoice, quiet, temperature_of

__all__ = ["generate"]


def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base: a folder of transformers, or a name.")],
    adapters: Annotated[list[Path], typer.Option(metavar="DIR", help="An adapter's folder; repeat it for the others.")],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the text begins with.")],
    router: Annotated[str, typer.Option(metavar="NAME", help="The router, or single:ADAPTER.")] = "phatgoose",
    top_k: Annotated[int, typer.Option(min=1, metavar="K", help="How many adapters a token goes to.")] = 2,
    temperature: Annotated[
        float | None, typer.Option(metavar="REAL", help="By which scores are divided. Default: √d of each module.")
    ] = None,
    granularity: Annotated[
        GranularityChoice, typer.Option(help="What chooses together: a token, a sequence, or all modules.")
    ] = GranularityChoice.TOKEN,
    missing: Annotated[
        MissingGatesChoice, typer.Option(help="Where an adapter has no gate: refuse, or route by Arrow there.")
    ] = MissingGatesChoice.ERROR,
    tokens: Annotated[int, typer.Option(min=1, metavar="N", help="The most new tokens.")] = 64,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the text coloured by adapter.")
    ] = None,
    dtype: Annotated[DtypeChoice, typer.Option(help="In what the base's weights are loaded.")] = DtypeChoice.FLOAT32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --page if it exists.")] = False,
) -> None:
    """Continue a prompt, each token by the adapters that the router chooses; the most likely token each time."""
    with ends_on_interrupt():
        from gatewise.files import check_new_file
        from gatewise.lora import Single, load_and_route, read
        from gatewise.lora.data import load_base
        from gatewise.report import write_report

        if page is not None:
            check_new_file(page, overwrite=overwrite)
        name, _, single = router.partition(":")
        with quiet():
            base, tokenizer = load_base(model, dtype.value)
            routed = load_and_route(
                base,
                adapters,
                Single(single) if name == "single" else router,
                top_k=top_k,
                temperature=temperature_of(temperature),
                granularity=granularity.value,
                missing=missing.value,
            )
            batch = dict(tokenizer(as_text(prompt), return_tensors="pt"))
            batch = {key: value for key, value in batch.items() if key in ("input_ids", "attention_mask")}
            ids = routed.generate(**batch, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
            coder = bool(base.config.is_encoder_decoder)
            new = ids[0] if coder else ids[0, batch["input_ids"].shape[1] :]
            text = tokenizer.decode(new, skip_special_tokens=True)
            if page is not None:
                whole = {**batch, "decoder_input_ids": ids} if coder else {"input_ids": ids}
                texts = [tokenizer.batch_decode([[token] for token in whole["input_ids"][0].tolist()])]
                read(routed, whole, texts)
                write_report(routed, page, overwrite=overwrite)
    print(text)
    if page is not None:
        print(page)
