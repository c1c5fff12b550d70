"""Tiny models trained on two domains with and without balance: `python benchmarks/balance.py`.

A mixtral (softmax, no correction bias: by a loss) and a deepseek_v3 (sigmoids with a correction bias: by the bias) of
two sparse layers and eight experts, 200 steps of transformers' Trainer on sequences of two alphabets, each with its own
order of letters. Loads are those of 64 sequences of each domain that were not trained on.
"""

import argparse
import sys
import tempfile
import warnings

import torch
import transformers
from transformers.utils import logging

from common import OUTPUT, machine, write_json
from gatewise.nn import RouterMonitor
from gatewise.nn.hf import BalanceCallback
from gatewise.nn.readers import readers_of

LETTERS, LENGTH, E = 60, 32, 8
SIZES = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
SIZES |= {"max_position_embeddings": 64, "num_experts_per_tok": 2}
CALLBACKS = {
    "mixtral": lambda: BalanceCallback("loss", 0.05, schedule="cosine", warmup=0.05, end=0.2),
    "deepseek_v3": lambda: BalanceCallback("bias", 0.01, schedule="cosine", end=0.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = {}
    for model_type in CALLBACKS:
        for balanced in (False, True):
            name = f"{model_type}, {'with' if balanced else 'without'} the callback"
            rows[name] = run(model_type, balanced, steps)
            for when in ("before", "after"):
                print(f"{name}, {when}")
                for layer, row in rows[name][when].items():
                    shares = " ".join(f"{share:.3f}" for share in row["loads"])
                    print(
                        f"  {layer}: {shares}   entropy {row['load_entropy']:.3f}, "
                        f"max/mean {row['max_over_mean']:.2f}, dead {row['dead']:.0f}"
                    )
            print(f"  loss of the last 20 steps: {rows[name]['loss']:.3f}", flush=True)
    write_json("balance.json", {"machine": machine(), "steps": steps, "rows": rows})
    print(OUTPUT / "balance.json")


def model_of(model_type: str) -> torch.nn.Module:
    """A model whose routers are uneven at first: embeddings share a direction, and so the logits an offset."""
    torch.manual_seed(0)
    if model_type == "mixtral":
        own = {"num_local_experts": E, "num_hidden_layers": 2, "num_key_value_heads": 2}
        config = transformers.MixtralConfig(**SIZES, **own)
    else:
        own = {"n_routed_experts": E, "n_group": 1, "topk_group": 1, "num_hidden_layers": 3, "first_k_dense_replace": 1}
        heads = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16}
        more = {"qk_rope_head_dim": 8, "v_head_dim": 16, "moe_intermediate_size": 48, "n_shared_experts": 1}
        config = transformers.DeepseekV3Config(**SIZES, **own, **heads, **more)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding.add_(0.02 * torch.randn(embedding.shape[1]))
        for reader in readers_of(model).values():
            for weight in reader.gate_parameters:
                weight.normal_(std=weight.shape[-1] ** -0.5)
    return model


class Sequences(torch.utils.data.Dataset):
    """Two alphabets of 60 letters, in each of which every letter has two followers."""

    def __init__(self, n: int, seed: int) -> None:
        rules = torch.Generator().manual_seed(0)
        followers = torch.randint(0, LETTERS, (2, LETTERS, 2), generator=rules)
        generator = torch.Generator().manual_seed(seed)
        self.domain = torch.arange(n) % 2
        letters = [torch.randint(0, LETTERS, (n,), generator=generator)]
        for _ in range(LENGTH - 1):
            turn = torch.randint(0, 2, (n,), generator=generator)
            letters.append(followers[self.domain, letters[-1], turn])
        self.ids = 3 + torch.stack(letters, 1) + LETTERS * self.domain.unsqueeze(1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[place], "labels": self.ids[place]}


def run(model_type: str, balanced: bool, steps: int) -> dict[str, object]:
    """Loads before and after the training."""
    model = model_of(model_type)
    found: dict[str, object] = {"before": loads(model)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=3e-3,
            logging_steps=20,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=0,
        )
        callbacks = [CALLBACKS[model_type]()] if balanced else []
        trainer = transformers.Trainer(model, arguments, train_dataset=Sequences(2048, 1), callbacks=callbacks)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return found | {"after": loads(model), "loss": logged[-1]}


def loads(model: torch.nn.Module) -> dict[str, dict[str, object]]:
    """Loads and measures of each router on sequences that were not trained on."""
    held_out = Sequences(128, 2)
    model.eval()
    with RouterMonitor(model) as monitor, torch.no_grad():
        model(held_out.ids)
    rows = {}
    for layer in monitor.layers:
        counts = monitor.counts(layer)
        rows[layer] = monitor.measures(layer) | {"loads": [count / sum(counts) for count in counts]}
        rows[layer] = {key: rows[layer][key] for key in ("loads", "load_entropy", "max_over_mean", "dead")}
    return rows


if __name__ == "__main__":
    sys.exit(main())
