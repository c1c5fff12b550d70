"""A monitor of routers: what they do with tokens, what is wrong with it, in bounded memory."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from gatewise.exceptions import InputError
from gatewise.messages import listed, shown
from gatewise.nn import measures
from gatewise.nn.arguments import whole
from gatewise.nn.batches import Labels, Rows
from gatewise.nn.findings import RouterFinding, findings_of, lacking_domains, strange_masks, window_of
from gatewise.nn.inside import Inside
from gatewise.nn.model_calls import Arguments, ModelCalls, called_modules
from gatewise.nn.probe import MOST_SHOWN, Probe, ProbedText, run_probe
from gatewise.nn.readers import readers_of
from gatewise.nn.routing import Routing
from gatewise.nn.tallies import Series, Tally
from gatewise.nn.watching import Call, Hook, has_compiled, watch

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RouterMonitor"]

# Sums are read and written by each thread of a model that runs in several, as in DataParallel.
_COUNTING = threading.Lock()


class RouterMonitor:
    """Watches the routers of a model: which experts their tokens go to, layer by layer.

    It reads the indices of every router that `gatewise.nn.readers.readers_of` finds, gatewise's own and those of
    transformers' models, and counts every slot of every token that is no padding: load n_e of expert e. Recomputations
    by checkpointing, copies of the model and probes are not counted. Nothing that it does reaches the model, its
    gradients or its random numbers, and its memory does not grow with the number of steps.

    Use it as a context manager, or with `start` and `stop`; `gatewise.nn.hf.MonitorCallback` makes a Trainer use it.

    Args:
        model: a model, or some of its layers.
        mask: the name of the model's argument that says which tokens count, (B, L) and 0 at padding; or a function of
            all arguments by their names that makes such a mask, to leave out prompts; None for none.
        domains: the name of a column of the batch with the domain of every sequence or token, which the monitor takes
            out of the call where the model's forward pass has no such argument; or a function of all arguments that
            makes labels, whole numbers or names. None: no domains but those of `batch`.
        sample: of how many tokens of each call, evenly spaced, the token entropy and the margin are taken. Loads are
            always those of all.
        most_domains: how many domains are told apart; what comes later is counted as "(others)".
        training_only: whether to count calls of routers in training mode alone.
        representations: whether to look at what routers read and what their layers give, too: the collapse of
            representations and effective ranks, on at most 1,024 tokens of the last call. It costs memory and time.
        experts: whether to look at the experts' outputs, too, where they are a `gatewise.nn` bank: saliency, on at most
            1,024 tokens of each call, and redundancy, when it is asked for. It costs much more.

    Raises:
        InputError: there is no router that can be read, or an argument is not what it may be.

    Example:
        >>> from gatewise.nn import SparseMoE
        >>> _ = torch.manual_seed(0)
        >>> layer = SparseMoE(8, "softmax", n_experts=4, hidden=8)
        >>> with RouterMonitor(layer) as monitor:
        ...     for _ in range(10):
        ...         y = layer(torch.randn(50, 8))
        >>> monitor.loads().sum(axis=1).tolist(), [finding.sentence for finding in monitor.findings()]
        ([1000], [])
    """

    def __init__(
        self,
        model: nn.Module | Sequence[nn.Module],
        *,
        mask: str | Callable[[Arguments], Any] | None = "attention_mask",
        domains: str | Callable[[Arguments], Any] | None = None,
        sample: int = 1024,
        most_domains: int = 64,
        training_only: bool = False,
        representations: bool = False,
        experts: bool = False,
    ) -> None:
        whole("sample", sample)
        # What is called: the model itself, or each of the layers.
        self._called = called_modules(model)
        self._root = model if isinstance(model, nn.Module) else nn.ModuleList(self._called)
        # What torch.compile puts around a module is no part of its name.
        self._readers = {name.replace("_orig_mod.", ""): reader for name, reader in readers_of(self._root).items()}
        self._training_only = training_only
        self._calls = ModelCalls(self._called, mask, domains, most_domains)
        self._tallies = {name: Tally(reader.n_experts, sample) for name, reader in self._readers.items()}
        self._inside = Inside(self._root, self._readers, self._calls.rows, representations, experts)
        self._probe = Probe()
        self._hooks: list[Hook] = []
        self.n_steps = 0

    @property
    def layers(self) -> list[str]:
        """The names of the routers, in the model's order."""
        return list(self._readers)

    @property
    def is_watching(self) -> bool:
        """Whether it has been started and not stopped."""
        return bool(self._hooks)

    def start(self) -> Self:
        """Begin to watch; what was counted before stays. What was compiled is compiled anew.

        Raises:
            InputError: it watches already.
        """
        if self.is_watching:
            raise InputError("this monitor watches already: stop it first, or make another one")
        if has_compiled():
            # Compiled code does not look for hooks that came later, and would be counted as no call at all. Which
            # modules it is of cannot be seen where what torch.compile made of them lies elsewhere.
            torch.compiler.reset()
        self._calls.start()
        for name, reader in self._readers.items():
            self._hooks.append(watch(reader, lambda call, name=name: self._count(name, call)))
        self._inside.start()
        return self

    def stop(self) -> None:
        """Watch no more; what was counted stays."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._inside.stop()
        self._calls.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def step(self) -> None:
        """Close a step: its loads become a point in `history`. Call it after each update; without it all is one."""
        for tally in self._tallies.values():
            tally.step(self.n_steps)
        self.n_steps += 1

    def new_window(self) -> None:
        """Begin a new window: summary, metrics and findings are about what comes from now on. Histories stay."""
        for tally in self._tallies.values():
            tally.begin()
        self._inside.begin()
        self._calls.begin()

    @contextmanager
    def batch(self, *, mask: Tensor | None = None, domain: Labels | None = None) -> Iterator[None]:
        """Within the block calls are of tokens with this mask and domain, beside what the calls' arguments say.

        Args:
            mask: booleans, True where a token counts, with one entry for each token of a call, (B, S) or (T,).
            domain: one label for all tokens, one for each sequence, or one for each token.

        Raises:
            InputError: the mask is not of booleans, or a label is neither a whole number nor text.

        Example:
            >>> from gatewise.nn import SparseMoE
            >>> layer = SparseMoE(8, n_experts=4, hidden=8)
            >>> with RouterMonitor(layer) as monitor:
            ...     with monitor.batch(mask=torch.arange(50) < 20, domain="code"):
            ...         y = layer(torch.randn(50, 8))
            >>> int(monitor.loads().sum(axis=None)), monitor.domains
            (40, ['code'])
        """
        with self._calls.given(mask, domain):
            yield

    @torch.no_grad()
    def _kept(self, call: Call) -> tuple[Routing, Rows]:
        """Of a call the tokens that count."""
        indices = call.routing.indices
        rows = self._calls.rows(len(indices), indices.device)
        return call.routing if rows.kept is None else call.routing.at(rows.kept), rows

    def _count(self, name: str, call: Call) -> None:
        if self._training_only and not call.reader.module.training:
            return
        routing, rows = self._kept(call)
        with _COUNTING:
            self._tallies[name].add(routing, call.reader.correction_bias, rows.codes, rows.fit)

    def probe(self, inputs: Any, tokens: Sequence[str] | None = None, *, reset: bool = False) -> dict[str, float]:
        """Pass the same tokens again and see how many of their experts have changed: 1 − |S ∩ S′|/K of each router.

        The model is called once, in evaluation mode and without gradients; nobody counts this call.

        Args:
            inputs: of the model: keywords as a mapping, positional arguments as a tuple or list, or one argument.
            tokens: the texts of the tokens that count, one after the other, so that a page can show them with their
                experts; the first 512 are kept.
            reset: whether these are other tokens than before.

        Returns:
            The mean change of each router since the last probe; empty the first time.

        Raises:
            InputError: there are other tokens than the last time, or not one text for each.

        Example:
            >>> from gatewise.nn import SparseMoE
            >>> layer, x = SparseMoE(8, n_experts=4, hidden=8), torch.randn(50, 8)
            >>> monitor = RouterMonitor(layer)
            >>> monitor.probe(x), monitor.probe(x)
            ({}, {'router': 0.0})
        """
        if reset:
            self._probe = Probe()
        watching = self.is_watching
        if not watching:
            # For the masks: nothing is counted meanwhile.
            self.start()
        try:
            experts = run_probe(self._root_call, self._readers, inputs, lambda call: self._kept(call)[0])
        finally:
            if not watching:
                self.stop()
        if tokens is not None:
            wrong = next((name for name, indices in experts.items() if len(indices) != len(tokens)), None)
            if wrong is not None:
                raise InputError(
                    f"there are {len(tokens)} texts of tokens, and {wrong} saw {len(experts[wrong])} tokens that count"
                )
        found = self._probe.compare(self.n_steps, experts)
        if tokens is not None:
            shown = {name: indices[:MOST_SHOWN] for name, indices in experts.items()}
            self._probe.text = ProbedText(tuple(tokens[:MOST_SHOWN]), shown)
        return found

    @property
    def _root_call(self) -> nn.Module:
        if len(self._called) != 1:
            raise InputError("a list of layers cannot be called as a model: probe a monitor of the model itself")
        return self._called[0]

    @property
    def text(self) -> ProbedText | None:
        """The text that was probed last with its tokens, and their experts."""
        return self._probe.text

    @property
    def domains(self) -> list[str]:
        """The domains in the order in which they came."""
        return list(self._calls.domains.names)

    def counts(self, layer: str) -> list[int]:
        """The slots of each expert of a router over the window."""
        return self._tally(layer).counts.tolist()

    def domain_counts(self, layer: str) -> list[list[int]]:
        """The slots of each expert of a router by domain, one row a domain, in the order of `domains`."""
        return self._table(layer).tolist()

    def domain_loads(self, layer: str) -> "pd.DataFrame":
        """The slots of each expert by domain over the window: one row a domain, one column an expert."""
        import pandas as pd

        table = self._table(layer)
        return pd.DataFrame(table.numpy(), index=pd.Index(self.domains, name="domain"))

    def _table(self, layer: str) -> Tensor:
        found = self._tally(layer).domains
        return torch.nn.functional.pad(found, (0, 0, 0, len(self.domains) - len(found)))

    def _tally(self, layer: str) -> Tally:
        if layer not in self.layers:
            raise InputError(f"there is no router {shown(layer)}: pass a name, one of {listed(self._tallies)}")
        return self._tallies[layer]

    def loads(self) -> "pd.DataFrame":
        """The slots of each expert over the window: one row a layer, one column an expert, NaN where there is none."""
        import pandas as pd

        counts = [pd.Series(tally.counts.tolist(), dtype="Int64") for tally in self._tallies.values()]
        frame = pd.concat(counts, axis=1).T
        frame.index = pd.Index(self.layers, name="layer")
        return frame

    def history(self, layer: str) -> Series:
        """The loads (E,) of a router over time, steps joined where there were many."""
        return self._tally(layer).history

    def changes(self, layer: str) -> Series:
        """The changes of a router's choices between probes, over time: sums and numbers (2,)."""
        self._tally(layer)
        return self._probe.changes.get(layer, Series())

    def redundancy(self, layer: str) -> Tensor:
        """How alike the experts of a layer are: linear CKA (E, E) of their outputs on at most 1,024 common tokens.

        Raises:
            InputError: the monitor was made without `experts=True`, the experts are no bank of gatewise's, or no token
                has been seen.
        """
        self._tally(layer)
        return self._inside.redundancy(layer)

    def saliency(self, layer: str) -> Tensor:
        """(1/N_e) Σ_t w_te ‖f_e(x_t)‖ of each expert (E,), over the tokens that were looked at; NaN without tokens.

        Raises:
            InputError: as `redundancy`.
        """
        self._tally(layer)
        return self._inside.saliency(layer)

    def measures(self, layer: str) -> dict[str, float]:
        """All measures of a router over the window, by their names; NaN where there is nothing to measure.

        `experts` E, `top_k` K, `tokens` how many it saw, `load_entropy` H(load)/log E, `token_entropy`
        mean H(s_t)/log E, `max_over_mean` of the load, `busiest_quarter` the share of the slots of the E/4 busiest
        experts, `dead` how many experts have less than 5 % of 1/E, `margin` the mean of the K-th less the (K + 1)-th
        choice score, `mutual_information` between expert and domain in nats with its `mutual_information_bias`,
        `selection_change` at the last probe; and with `representations=True` `representation_collapse`,
        `rank_before` and `rank_after` the layer.
        """
        tally = self._tally(layer)
        counts, sums = tally.counts, tally.sums
        information = measures.mutual_information(tally.domains)
        settled = sums["margins"] >= 0.9 * sums["tokens"] and sums["margins"] > 0
        change = self._probe.last(layer)
        return {
            "experts": float(tally.n_experts),
            "top_k": float(tally.top_k),
            "tokens": float(tally.n_tokens),
            "load_entropy": measures.load_entropy(counts),
            "token_entropy": sums["entropy"] / sums["entropies"] if sums["entropies"] else math.nan,
            "max_over_mean": measures.max_over_mean(counts),
            "busiest_quarter": measures.busiest_share(counts),
            "dead": float(len(measures.dead_experts(counts))) if tally.n_tokens else math.nan,
            # A choice by a table of token ids has no margin, though some tokens happen to get their best experts.
            "margin": sums["margin"] / sums["margins"] if settled else math.nan,
            "mutual_information": information.value,
            "mutual_information_bias": information.bias,
            "selection_change": math.nan if change is None else change,
            **self._inside.measures(layer),
        }

    def summary(self) -> "pd.DataFrame":
        """One row a router: `measures` and, under `findings`, what is wrong with it.

        Example:
            >>> from gatewise.nn import SparseMoE
            >>> layer = SparseMoE(8, n_experts=4, hidden=8)
            >>> with RouterMonitor(layer) as monitor:
            ...     y = layer(torch.randn(500, 8))
            >>> frame = monitor.summary()
            >>> frame.index.tolist(), frame["tokens"].tolist()
            (['router'], [500])
        """
        import pandas as pd

        rows = [self.measures(layer) for layer in self.layers]
        frame = pd.DataFrame(rows, index=pd.Index(self.layers, name="layer"))
        frame = frame.astype(dict.fromkeys(("experts", "top_k", "tokens"), "int64"))
        frame["dead"] = frame["dead"].astype("Int64")
        kinds = {layer: [] for layer in self.layers}
        for finding in self.findings():
            if finding.layer in kinds:
                kinds[finding.layer].append(finding.kind)
        frame["findings"] = [", ".join(kinds[layer]) for layer in self.layers]
        return frame

    def metrics(self, prefix: str = "routers/", *, each_layer: bool = True) -> dict[str, float]:
        """The measures as flat scalars for a logger, without those that are no numbers.

        Args:
            prefix: of all names.
            each_layer: whether to give each router's, beside the means and extremes over them.

        Example:
            >>> from gatewise.nn import SparseMoE
            >>> layer = SparseMoE(8, n_experts=4, hidden=8)
            >>> with RouterMonitor(layer) as monitor:
            ...     y = layer(torch.randn(500, 8))
            >>> sorted(monitor.metrics(each_layer=False))[:3]
            ['routers/least/load_entropy', 'routers/mean/busiest_quarter', 'routers/mean/dead']
        """
        rows = {layer: self.measures(layer) for layer in self.layers}
        found = {}
        for name in next(iter(rows.values())):
            if name in ("experts", "top_k"):
                continue
            values = {layer: row[name] for layer, row in rows.items() if math.isfinite(row[name])}
            if values and name != "tokens":
                found[f"{prefix}mean/{name}"] = sum(values.values()) / len(values)
            if each_layer:
                found |= {f"{prefix}{layer or 'router'}/{name}": value for layer, value in values.items()}
        dead = [row["dead"] for row in rows.values() if math.isfinite(row["dead"])]
        entropy = [row["load_entropy"] for row in rows.values() if math.isfinite(row["load_entropy"])]
        if entropy:
            found[f"{prefix}least/load_entropy"] = min(entropy)
            found[f"{prefix}total/dead"] = sum(dead)
        found[f"{prefix}total/warnings"] = float(sum(one.severity == "warning" for one in self.findings()))
        return found

    def findings(self) -> list[RouterFinding]:
        """What is wrong with the routers over the window, and what limits what can be said, layer by layer."""
        found = findings_of(window_of(name, tally) for name, tally in self._tallies.items())
        seen = any(tally.n_calls for tally in self._tallies.values())
        lacking = self._calls.lacking_column if seen else None
        return [*found, *strange_masks(self._calls.n_strange), *lacking_domains(lacking)]
