"""A network with exits: heads after some of its blocks, and a policy that says who leaves where."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from gatewise.early_exit.blocks import Exits, find_blocks, siblings
from gatewise.early_exit.cache import FeatureCache, cached, labels_of
from gatewise.early_exit.costs import CostTable
from gatewise.early_exit.counting import Clock, Evaluate, count_multiply_adds, measure_milliseconds
from gatewise.early_exit.heads import HeadMaker, make_heads
from gatewise.early_exit.inputs import n_rows
from gatewise.early_exit.interception import Interception, Step
from gatewise.early_exit.outputs import EarlyExitOutput, ExitLogits
from gatewise.early_exit.policies import JEI, POLICIES, Aim, Policy
from gatewise.early_exit.policies.jei import GateInputs, uncertainty
from gatewise.early_exit.pooling import Pooling, pooling
from gatewise.early_exit.probing import check_that_samples_can_leave, has_own_logits, own_logits, widths
from gatewise.early_exit.trace import N_STATISTICS
from gatewise.exceptions import InputError
from gatewise.messages import choose, shown
from gatewise.nn.arguments import one_of, whole

if TYPE_CHECKING:
    from gatewise.early_exit.exporting import ExportedStage
    from gatewise.early_exit.training import Sweep

__all__ = ["EarlyExitModel"]

Last = Literal["auto", "own", "head"]
AtExit = Callable[[int, Evaluate], Tensor | None]


class EarlyExitModel(nn.Module):
    """x ↦ z_l = head_l(pool(h_l)) of the first exit l at which the policy lets x leave, h_l the l-th block's output.

    The backbone is used as it is and stays in evaluation mode; its code runs once for each batch, and after an exit
    on those samples only that go on.

    Args:
        backbone: any module, or a list of stages, each a module that reads what the one before gives.
        exits: after which blocks there is an exit, see `gatewise.early_exit.blocks.find_blocks`: "blocks",
            "encoder.layer.*", [2, 4, 6].
        n_classes: C.
        example: one batch as the backbone is called with: a tensor, a tuple, or a mapping by names. From it come the
            heads' widths, the multiply-adds, and which axes belong to samples and to the length of sequences.
        pool: from a block's output to one vector: "auto" and "mean" (over tokens that are no padding, or over a map),
            "cls" (the first token), or a function of output and mask.
        head: "linear" (standardised by the training data), "norm_linear", a function of width and C that makes a
            module, or one module for each exit.
        last: whether the last exit is what the backbone itself gives ("own"), a new head after the last named block
            ("head"), or the first where these are logits of C classes ("auto").
        mask: the name of the argument that is the padding mask (n, T).
        trim: whether sequences are cut to the longest that is left.
        gate_inputs: what gates read, see `gatewise.early_exit.policies.jei.uncertainty`.

    Attributes:
        names: the blocks after which there are exits, in the order in which they run; "" is the backbone's own end.
        exit_of: their numbers by name.
        first_heads: the heads' parameters before any training, with which every fit begins.
        costs: the table of costs.
        policy: the policy in use, or None.
        sweep: what `fit` has found, or None.

    Raises:
        InputError: a name is not there, the example does not fit, a block's output is no tensor, or samples cannot
            leave because something after the first exit still counts them.

    Example:
        >>> from torch import nn
        >>> backbone = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)), nn.Linear(8, 4))
        >>> model = EarlyExitModel(backbone, exits=[0, 1, 2], n_classes=4, example=torch.zeros(2, 8))
        >>> model.names, model.costs.blocks
        (('0', '1', '2', ''), (64.0, 64.0, 64.0, 32.0))
        >>> model.all_logits(torch.zeros(5, 8)).logits.shape
        torch.Size([5, 4, 4])
    """

    temperatures: Tensor

    def __init__(
        self,
        backbone: nn.Module | Sequence[nn.Module],
        *,
        exits: Exits,
        n_classes: int,
        example: Any,
        pool: str | Pooling = "auto",
        head: str | HeadMaker | Sequence[nn.Module] = "linear",
        last: Last = "auto",
        mask: str = "attention_mask",
        trim: bool = True,
        gate_inputs: GateInputs = uncertainty,
    ) -> None:
        super().__init__()
        whole("n_classes", n_classes, least=2)
        one_of("last", last, ("auto", "own", "head"))
        if not isinstance(backbone, nn.Module):
            if (
                not isinstance(backbone, Sequence)
                or not backbone
                or not all(isinstance(stage, nn.Module) for stage in backbone)
            ):
                raise InputError(f"the backbone must be a module or a list of modules, not {shown(backbone)}")
            backbone = nn.Sequential(*backbone)
        self.backbone = backbone.eval()
        self.n_classes = n_classes
        self.pool = pooling(pool)
        self.gate_inputs = gate_inputs
        self.n_gate_features = N_STATISTICS
        named = find_blocks(backbone, exits)
        self.interception = Interception(backbone, siblings(backbone, named), named, mask, trim)
        order = self.interception.probe(example)
        if missing := [name for name in named if name not in order]:
            raise InputError(f"the block {missing[0]!r} does not run when the backbone does: leave it out of the exits")
        self.own_last, names = has_own_logits(self, [name for name in order if name in named], example, last)
        self.names = (*names, "") if self.own_last else tuple(names)
        self.n_exits = len(self.names)
        if self.n_exits < 2:
            raise InputError("there is only one exit: name a block before the last one")
        self.exit_of = {name: exit for exit, name in enumerate(self.names) if name}
        self.widths = widths(self, example)
        self.heads = make_heads(head, self.widths, n_classes)
        self.first_heads = {name: value.clone() for name, value in self.heads.state_dict().items()}
        self.register_buffer("temperatures", torch.ones(self.n_exits))
        self.policy: Policy | None = None
        self.sweep: Sweep | None = None
        check_that_samples_can_leave(self, example)
        self.costs: CostTable = count_multiply_adds(self, example)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the heads only: statistics of the backbone's batch norms must not move under them."""
        super().train(mode)
        self.backbone.eval()
        return self

    def pooled(self, step: Step) -> Tensor:
        """What a head reads, (n, d), in float32 whatever the backbone computes in.

        Raises:
            InputError: the pooling does not give one vector for each sample.
        """
        vectors = self.pool(step.hidden, step.mask)
        if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != len(step.hidden):
            found = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
            raise InputError(
                f"the pooling must give one vector for each of the {len(step.hidden)} samples of {step.name!r}, not "
                f"{found}"
            )
        return vectors.float()

    def calibrated(self, exit: int, logits: Tensor) -> Tensor:
        """The logits of an exit divided by its temperature."""
        return logits / self.temperatures[exit]

    def walk(self, inputs: Any, at_exit: AtExit) -> None:
        """Run the backbone, and ask at each exit who goes on.

        Args:
            inputs: a batch.
            at_exit: is called with an exit's number and a function that gives its logits; it returns the places of
                those who go on, or None for all.
        """

        def visit(step: Step) -> Tensor | None:
            exit = self.exit_of.get(step.name)
            if exit is None:
                return None
            keep = at_exit(exit, lambda: (self.heads[exit](self.pooled(step)), step))
            # Behind a last head nothing of the backbone has to run.
            return keep if exit < self.n_exits - 1 else step.hidden.new_zeros(0, dtype=torch.long)

        output = self.interception.run(inputs, visit)
        if self.own_last and output is not None:
            at_exit(self.n_exits - 1, lambda: (own_logits(output, self.n_classes), None))

    def forward(self, inputs: Any) -> Tensor:
        """Logits of all exits, (n, L, C), uncalibrated, with gradients."""
        found: list[Tensor] = []
        self.walk(inputs, lambda _, evaluate: found.append(evaluate()[0]))
        return torch.stack(found, 1)

    @torch.no_grad()
    def features(self, inputs: Any) -> tuple[list[Tensor], Tensor | None]:
        """What the heads read of a batch, one (n, d) for each, and the backbone's own logits (n, C) or None."""
        found: list[Tensor] = []

        def visit(step: Step) -> Tensor | None:
            if step.name in self.exit_of:
                found.append(self.pooled(step))
                if self.exit_of[step.name] == self.n_exits - 1:
                    return step.hidden.new_zeros(0, dtype=torch.long)
            return None

        output = self.interception.run(inputs, visit)
        return found, own_logits(output, self.n_classes) if self.own_last else None

    def head_logits(self, features: Sequence[Tensor], own: Tensor | None) -> Tensor:
        """Logits of all exits, (n, L, C), from what the heads read."""
        found = [head(part) for head, part in zip(self.heads, features, strict=True)]
        return torch.stack(found if own is None else [*found, own.float()], 1)

    def cache_features(
        self, data: Any, y: Any = None, *, folder: str | Path | None = None, batch_size: int = 256
    ) -> FeatureCache:
        """One pass of the backbone: what all heads read, kept, so that heads and gates are fitted in seconds.

        Args:
            data: inputs as the backbone is called with, or a loader of batches, of pairs (inputs, classes) if y is
                left out.
            y: classes (n,), or None if the loader has them.
            folder: where arrays are kept, mapped into memory when read; in memory by default.
            batch_size: samples of a pass, if data is no loader.

        Raises:
            InputError: classes out of range, or of another number than samples.
            OutputError: the folder cannot be written, or exists.
        """
        return cached(self, data, y, None if folder is None else Path(folder), batch_size)

    @torch.no_grad()
    def all_logits(self, data: Any, y: Any = None, *, batch_size: int = 256) -> ExitLogits:
        """The logits of all exits of a data set, uncalibrated, and its classes if they are known.

        Args:
            data: as for `cache_features`, or cached features.
            y: classes or None.
            batch_size: samples of a pass.

        Raises:
            InputError: classes out of range.
        """
        features = data if isinstance(data, FeatureCache) else cached(self, data, y, None, batch_size)
        logits = self.head_logits(features.features, features.own)
        return ExitLogits(logits, features.y if y is None else labels_of(y, self.n_classes))

    def fit(
        self,
        x: Any,
        y: Any = None,
        x_val: Any = None,
        y_val: Any = None,
        *,
        lam: float | Sequence[float],
        **options: Any,
    ) -> Self:
        """Train heads and gates for each λ: see `gatewise.early_exit.training.ExitTraining` for all options.

        Args:
            x: training data: inputs, a loader, or cached features.
            y: its classes, if x does not have them.
            x_val: data that the heads do not see, for patience, temperatures, gates and policies.
            y_val: its classes.
            lam: λ, or several: in units of loss for the cost of the whole network.
            **options: fields of `ExitTraining`.

        Returns:
            The model. Choose a policy next, by `set_policy`.

        Raises:
            InputError: classes out of range, none of some class in the validation data, or an option is unknown.
        """
        from gatewise.early_exit.training import ExitTraining, fit_model

        self.policy = None
        fit_model(self, x, y, x_val, y_val, lam, ExitTraining.of(options))
        return self

    def measure_costs(
        self, inputs: Any, batch_size: int | None = None, *, repeats: int = 9, clock: Clock = "wall"
    ) -> CostTable:
        """Measure milliseconds on this machine, and take them as the model's costs; decisions are those of the policy.

        Args:
            inputs: a batch.
            batch_size: how many samples will come together; by default as many as there are in `inputs`.
            repeats: runs of each size; the median counts.
            clock: "wall" or "cpu".

        Raises:
            InputError: the batch size is below 1, or the clock is unknown.
        """
        size = n_rows(inputs) if batch_size is None else batch_size
        self.costs = measure_milliseconds(self, inputs, size, self.policy, repeats, clock)
        return self.costs

    def costs_of(self, policy: type[Policy]) -> CostTable:
        """The costs with the decisions of a kind of policy."""
        if self.costs.unit == "milliseconds":
            return self.costs
        each = policy.decision_products(self.n_classes, self.n_gate_features)
        return self.costs.with_decisions([each] * (self.n_exits - 1))

    def set_policy(
        self,
        name: str = JEI.name,
        *,
        lam: float | None = None,
        budget: float | None = None,
        budget_ms: float | None = None,
        setting: float | None = None,
        calibrate: bool = True,
        heads: float | None = None,
        **options: Any,
    ) -> Self:
        """Choose who leaves where: fitted to the validation data that `fit` was given.

        Args:
            name: one of `gatewise.early_exit.POLICIES`.
            lam: for the smallest mean of loss + λ · cost.
            budget: for the best at a mean cost of at most this share of the network's.
            budget_ms: the same in milliseconds a sample, after `measure_costs`.
            setting: the policy's own number: a threshold, a patience, an exit.
            calibrate: whether each exit has its temperature, the same for all policies.
            heads: the λ whose jointly trained heads are used; by default those of the warm-up, and for JEI its own.
            **options: of the policy.

        Raises:
            InputError: no such policy, nothing fitted yet, or the policy refuses.
        """
        from gatewise.early_exit.choosing import choose_policy

        if name not in POLICIES:
            raise InputError(f"there is no policy {shown(name)}: {choose(name, POLICIES)}")
        choose_policy(self, POLICIES[name], Aim(lam, budget, budget_ms, setting), calibrate, heads, options)
        return self

    def chosen(self) -> Policy:
        """The policy in use.

        Raises:
            InputError: there is none.
        """
        if self.policy is None:
            raise InputError('there is no policy yet: call fit, and then set_policy("jei", lam=…) or another')
        return self.policy

    @torch.no_grad()
    def infer(self, inputs: Any) -> EarlyExitOutput:
        """Answers of a batch, each sample running no further than to its exit.

        Raises:
            InputError: there is no policy, or it needs the classes.

        Warns:
            NonFiniteWarning: the logits of some samples are no numbers, see `EarlyExitOutput.is_finite`.
        """
        from gatewise.early_exit.running import infer

        return infer(self, self.chosen(), inputs)

    @torch.no_grad()
    def simulate(self, data: Any, y: Any = None, *, batch_size: int = 256) -> EarlyExitOutput:
        """What `infer` would give, from the logits of all exits; exits differ from its only where `near` says so.

        Args:
            data: inputs, a loader, cached features, or the logits of all exits, uncalibrated.
            y: classes, which the oracle needs.
            batch_size: samples of a pass.

        Raises:
            InputError: there is no policy.
        """
        policy = self.chosen()
        outputs = data if isinstance(data, ExitLogits) else self.all_logits(data, y, batch_size=batch_size)
        if policy.needs_labels and outputs.y is None:
            raise InputError(f"the {policy.name} policy needs the classes: pass y")
        return policy.simulate(outputs.calibrated(self.temperatures), self.costs_of(type(policy)))

    def compile_stages(self, **options: Any) -> Self:
        """Run every block through `torch.compile`; who leaves is decided between the compiled parts.

        Args:
            **options: of `torch.compile`; by default with dynamic shapes, since batches shrink.
        """
        for name in self.interception.order:
            module = self.backbone.get_submodule(name)
            self.interception.compiled[name] = torch.compile(module.forward, **{"dynamic": True, **options})
        return self

    def export_stages(self, example: Any) -> "dict[str, ExportedStage]":
        """Every block, and the head of every exit with its pooling and temperature, as exported programs.

        For any number of samples, of sequences of the example's length. What is between blocks is the backbone's own
        code, and not exported; who leaves is for the caller to decide, from the heads' logits.

        Args:
            example: a batch of two samples or more.

        Returns:
            By the block's name `ExportedStage`.

        Example:
            >>> from torch import nn
            >>> backbone = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> model = EarlyExitModel(backbone, exits=[1], n_classes=2, example=torch.zeros(2, 3))
            >>> stages = model.export_stages(torch.zeros(2, 3))
            >>> hidden = stages["0"].block.module()(torch.zeros(5, 3))
            >>> stages["1"].head.module()(stages["1"].block.module()(hidden)).shape, stages["2"].head
            (torch.Size([5, 2]), None)
        """
        from gatewise.early_exit.exporting import exported

        return exported(self, example)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write heads, gates, policy and costs to a folder of JSON and safetensors; the backbone stays where it is.

        Args:
            folder: its parent must exist.
            overwrite: whether a folder that Gatewise wrote may be replaced.

        Raises:
            OutputError: it cannot be written, or exists.
        """
        from gatewise.early_exit.folder import save

        save(self, Path(folder), overwrite)

    def load(self, folder: str | Path) -> Self:
        """Take heads, gates, policy and costs from a folder; the model has been built with the same backbone and exits.

        Raises:
            ModelFolderError: the folder is damaged, or of another backbone or other exits.
        """
        from gatewise.early_exit.folder import load

        load(self, Path(folder))
        return self
