"""`gatewise lora gates`: train the gates of one adapter."""

from pathlib import Path
from typing import Annotated

import typer

from gatewise.cli.common import ends_on_interrupt
from gatewise.cli.lora_common import DtypeChoice, quiet

__all__ = ["gates"]


def gates(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base: a folder of transformers, or a name.")],
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder; the gates go there.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help='Documents of the adapter\'s own kind, one JSON object per line: {"text": …} or {"prompt": …, '
            '"completion": …}.',
        ),
    ],
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the training.")] = 100,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Documents of a batch.")] = 8,
    length: Annotated[int, typer.Option(min=2, metavar="N", help="The most tokens of a document.")] = 256,
    rate: Annotated[float, typer.Option(metavar="REAL", help="The learning rate.")] = 5e-3,
    seed: Annotated[int, typer.Option(min=0, metavar="S", help="Seed of the order of the documents.")] = 0,
    dtype: Annotated[DtypeChoice, typer.Option(help="In what the base's weights are loaded.")] = DtypeChoice.FLOAT32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace gates that are there.")] = False,
) -> None:
    """Train one vector for each module, with base and adapter frozen, and write them beside the adapter's files."""
    with ends_on_interrupt():
        import random

        from gatewise.files import check_new_file
        from gatewise.lora import train_gates
        from gatewise.lora.attach import first_adapter
        from gatewise.lora.data import batches_of, load_base, read_documents
        from gatewise.lora.gate_set import GATES_FILE

        check_new_file(adapter / GATES_FILE, overwrite=overwrite)
        documents = read_documents(data)
        random.Random(seed).shuffle(documents)
        with quiet():
            base, tokenizer = load_base(model, dtype.value)
            coder = bool(base.config.is_encoder_decoder)
            batches = batches_of(documents, tokenizer, length=length, size=batch, encoder_decoder=coder)
            peft_model, name = first_adapter(base, adapter)
            found = train_gates(peft_model, name, batches, steps, learning_rate=rate)
        found.save_pretrained(adapter, overwrite=overwrite)
    print(found.sentence)
    print(adapter / GATES_FILE)
