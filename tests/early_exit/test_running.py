"""A run in which samples leave equals the simulation, and it does leave."""

import pytest
import torch
from torch import nn

from gatewise.early_exit import POLICIES, EarlyExitModel, ExitLogits
from gatewise.early_exit.policies import Aim, Situation
from gatewise.exceptions import InputError
from tests.early_exit.conftest import LAMBDAS, small_network

RUNNABLE = [name for name, policy in POLICIES.items() if not policy.needs_labels]
SETTINGS = {"jei": {"lam": 2.0}, "fixed": {"setting": 2}, "patience": {"setting": 1}}
# Rounding in float32 of batches of other sizes, in logits of size about 10.
CLOSE = {"rtol": 0, "atol": 2e-4}


def rows_of(inputs, start, size):
    if isinstance(inputs, dict):
        return {name: value[start : start + size] for name, value in inputs.items()}
    return inputs[start : start + size]


def check(model, inputs, n, size):
    simulated = model.simulate(inputs)
    outputs = [model.infer(rows_of(inputs, start, size)) for start in range(0, n, size)]
    exits = torch.cat([output.exit_index for output in outputs])
    logits = torch.cat([output.logits for output in outputs])
    same = exits == simulated.exit_index
    assert simulated.near[~same].all()
    torch.testing.assert_close(logits[same], simulated.logits[same], **CLOSE)
    cost = torch.cat([output.cost for output in outputs])
    assert torch.equal(cost[same], simulated.cost[same])
    return exits


@pytest.mark.parametrize("size", [1, 7, 16, 64])
@pytest.mark.parametrize("name", RUNNABLE)
def test_runs_equal_simulations(frozen, digits, name, size):
    x = digits["test"][0][:83]
    for calibrate in (True, False):
        frozen.set_policy(name, calibrate=calibrate, **SETTINGS.get(name, {"budget": 0.6}))
        exits = check(frozen, x, len(x), size)
        assert name == "fixed" or len(exits.unique()) > 1


@pytest.mark.parametrize("size", [1, 7, 64])
def test_runs_equal_simulations_with_the_papers_decoding(frozen, digits, size):
    frozen.set_policy("jei", lam=0.3, decoding="paper")
    x = digits["test"][0][:83]
    check(frozen, x, len(x), size)


@pytest.mark.parametrize("size", [1, 7, 16, 64])
@pytest.mark.parametrize("name", ["max_prob", "jei", "optimal_stopping", "patience"])
def test_runs_equal_simulations_of_padded_texts(reader, texts, name, size):
    inputs = rows_of(texts[0], 0, 100)
    reader.set_policy(name, **SETTINGS.get(name, {"budget": 0.7}))
    check(reader, inputs, 100, size)


def test_jointly_trained_runs_equal_simulations(joint, digits):
    x = digits["test"][0][:83]
    for lam in (0.05, 0.5):
        joint.set_policy("jei", lam=lam)
        check(joint, x, len(x), 16)


def test_lambda_without_bounds_leaves_at_the_first_exit(frozen, joint, digits):
    for model in (frozen, joint):
        for calibrate in (True, False):
            model.set_policy("jei", lam=1e9, calibrate=calibrate)
            assert (model.infer(digits["test"][0]).exit_index == 0).all()


def test_blocks_run_on_those_who_are_left(frozen, digits):
    x = digits["test"][0][:64]
    frozen.set_policy("max_prob", budget=0.6)
    counts = []
    handles = [
        frozen.backbone.get_submodule(name).register_forward_hook(lambda _, given, out: counts.append(len(given[0])))
        for name in ("0", "1", "2", "3", "4")
    ]
    output = frozen.infer(x)
    for handle in handles:
        handle.remove()
    assert counts == [n for n in ((output.exit_index >= exit).sum().item() for exit in range(5)) if n]
    assert counts[0] == 64 > counts[-1]


def test_texts_are_cut_to_the_longest_that_is_left(reader, texts):
    inputs, _ = texts
    lengths = inputs["attention_mask"].sum(1)
    reader.set_policy("max_prob", setting=0.0)
    reader.policy.margin = lambda trace: (
        torch.where(lengths[order] > 6, 1.0, -1.0) if trace.exit == 0 else torch.full((len(trace),), -1.0)
    )
    order = torch.arange(60)
    seen = []
    handle = reader.backbone.encoder.layer[2].register_forward_hook(lambda _, given, out: seen.append(given[0].shape))
    output = reader.infer(rows_of(inputs, 0, 60))
    handle.remove()
    stay = lengths[:60] <= 6
    assert seen == [(int(stay.sum()), 6, 16)]
    full = reader.all_logits(rows_of(inputs, 0, 60)).calibrated(reader.temperatures)
    torch.testing.assert_close(output.logits, full.answers(output.exit_index), **CLOSE)


def test_a_backbone_is_as_before_after_runs_and_failures(frozen, digits):
    x = digits["test"][0][:5]
    before = frozen.backbone(x)
    frozen.set_policy("fixed", setting=0)
    frozen.infer(x)
    with pytest.raises(ValueError, match="stop"):
        frozen.walk(x, lambda exit, evaluate: (_ for _ in ()).throw(ValueError("stop")))
    assert torch.equal(frozen.backbone(x), before)
    assert not [name for name, module in frozen.backbone.named_modules() if "forward" in vars(module)]


def test_batch_norm_stays_as_it_is(network, digits):
    net = small_network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = EarlyExitModel(net, exits=[0, 2], n_classes=10, example=digits["train"][0][:2])
    model.train()
    model.fit(*digits["train"], *digits["val"], lam=0.1, joint_epochs=1, warmup_epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())


class Residual(nn.Module):
    """A backbone whose blocks get a mask of all samples and give tuples, and whose end is its own."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.blocks = nn.ModuleList(Masked() for _ in range(4))
        self.head = nn.Linear(6, 3)

    def forward(self, x, scale=None):
        mask = (x.sum(1, keepdim=True) > 0).float()
        shared = torch.ones(6)
        hidden = self.embed(x)
        for each in self.blocks:
            hidden, _ = each(hidden, mask=mask, extra=(shared, [mask]))
        return {"logits": self.head(hidden)}


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, hidden, mask, extra):
        assert len(mask) == len(hidden) == len(extra[1][0])
        return hidden + torch.tanh(self.linear(hidden)) * mask * extra[0], {"mask": mask}


@pytest.mark.parametrize("exits", ["blocks", ["blocks.0", "blocks.2"], "blocks.*"])
def test_masks_of_all_samples_are_cut_and_tuples_kept(exits):
    torch.manual_seed(0)
    # Six samples for six features: an axis that has the batch's length by chance is not taken for it.
    model = EarlyExitModel(Residual(), exits=exits, n_classes=3, example=torch.randn(6, 3))
    assert model.names[-1] == ""
    x = torch.randn(60, 3)
    y = torch.arange(60) % 3
    model.fit(x, y, x, y, lam=0.1, joint=False, warmup_epochs=1)
    model.set_policy("max_prob", setting=float(model.all_logits(x).statistics[:, 0, 0].median()) + 1e-4)
    check(model, x, 60, 6)


class Reusing(nn.Module):
    """A rectifier that runs again and again, a part that gives no tensor, tokens on one axis before the first exit."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.relu, self.note, self.flat = nn.ReLU(), Note(), nn.Flatten(0, 1)

    def forward(self, x):
        self.note(x)
        x = self.flat(x[:, None]).reshape(len(x), -1)
        return self.third(self.relu(self.second(self.relu(self.first(self.relu(x))))))


class Note(nn.Module):
    def forward(self, x):
        return "noted"


def test_modules_beside_the_exits_may_do_what_they_like():
    torch.manual_seed(0)
    model = EarlyExitModel(Reusing(), exits=["first", "second"], n_classes=3, example=torch.randn(4, 3))
    x, y = torch.randn(60, 3), torch.arange(60) % 3
    model.fit(x, y, x, y, lam=0.1, joint=False, warmup_epochs=2)
    model.set_policy("max_prob", budget=0.9)
    check(model, x, 60, 7)


def test_a_list_of_stages_is_a_backbone():
    stages = [nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU()]
    model = EarlyExitModel(stages, exits=[1, 3], n_classes=4, example=torch.zeros(2, 3))
    assert model.names == ("1", "3")
    assert model(torch.zeros(3, 3)).shape == (3, 2, 4)


def test_the_oracle_can_be_simulated_only(frozen, digits):
    frozen.set_policy("oracle", setting=0)
    with pytest.raises(InputError, match="knows the answers"):
        frozen.infer(digits["test"][0])
    x, y = digits["test"]
    right = frozen.all_logits(x, y).correct()
    assert frozen.simulate(x, y).predictions.eq(y).sum() == right.any(1).sum()


def test_compiled_stages_give_the_same(network, digits):
    model = EarlyExitModel(network, exits=[1, 3], n_classes=10, example=digits["train"][0][:4])
    model.fit(*digits["train"], *digits["val"], lam=0.1, joint=False, warmup_epochs=1)
    model.set_policy("max_prob", budget=0.7)
    x = digits["test"][0][:40]
    expected = model.infer(x)
    model.compile_stages(backend="eager")
    found = model.infer(x)
    assert torch.equal(found.exit_index, expected.exit_index)
    torch.testing.assert_close(found.logits, expected.logits, **CLOSE)


def test_stages_and_heads_are_exported_for_any_number_of_samples(frozen, digits, tmp_path):
    frozen.set_policy("max_prob", budget=0.6)
    stages = frozen.export_stages(digits["train"][0][:4])
    assert list(stages) == ["0", "1", "2", "3", "4"]
    assert [name for name, stage in stages.items() if stage.head is None] == ["4"]
    hidden = x = digits["test"][0][:9]
    expected = frozen.all_logits(x).calibrated(frozen.temperatures).logits
    for exit, stage in enumerate(stages.values()):
        hidden = stage.block.module()(hidden)
        if stage.head is not None:
            torch.export.save(stage.head, tmp_path / f"{exit}.pt2")
            logits = torch.export.load(tmp_path / f"{exit}.pt2").module()(hidden)
            torch.testing.assert_close(logits, expected[:, exit], **CLOSE)
    torch.testing.assert_close(hidden, frozen.backbone(x), **CLOSE)


def test_exported_stages_of_an_encoder_read_the_mask(reader, texts):
    reader.set_policy("max_prob", setting=0.9)
    inputs = rows_of(texts[0], 0, 5)
    stages = reader.export_stages(rows_of(texts[0], 0, 2))
    expected = reader.all_logits(inputs).calibrated(reader.temperatures).logits
    # As the encoder makes it of the padding.
    mask = inputs["attention_mask"].bool()[:, None, None].expand(-1, 1, 12, -1)
    found, outputs = [], []

    def visit(step):
        if outputs:
            torch.testing.assert_close(stages[step.name].block.module()(outputs[-1], mask), step.hidden, **CLOSE)
        outputs.append(step.hidden)
        found.append(stages[step.name].head.module()(step.hidden, step.mask))

    with torch.no_grad():
        reader.interception.run(inputs, visit)
    torch.testing.assert_close(torch.stack(found, 1), expected, **CLOSE)


def test_bfloat16_backbones_have_heads_in_float32(digits):
    net = small_network().to(torch.bfloat16)
    x = digits["train"][0][:6].to(torch.bfloat16)
    model = EarlyExitModel(net, exits=[0, 2], n_classes=10, example=x)
    assert model.all_logits(x).logits.dtype == torch.float32


def test_constant_inputs_of_gates_use_one_exit(digits, network):
    model = EarlyExitModel(
        network,
        exits=[0, 1, 2, 3],
        n_classes=10,
        example=digits["train"][0][:4],
        gate_inputs=lambda trace: torch.ones(len(trace), 2),
    )
    model.fit(*digits["train"], *digits["val"], lam=LAMBDAS, joint=False, warmup_epochs=1)
    for lam in LAMBDAS:
        model.set_policy("jei", lam=lam)
        assert len(model.infer(digits["test"][0]).exit_index.unique()) == 1


def test_near_decisions_are_counted():
    logits = torch.zeros(3, 2, 2)
    logits[:, 0, 0] = torch.logit(torch.tensor([0.8, 0.8 + 5e-7, 0.9]).double()).float()
    from gatewise.early_exit.costs import CostTable
    from gatewise.early_exit.policies import MaxProbability

    table = CostTable((1.0, 1.0), (0.0, 0.0), (0.0, 0.0))
    found = MaxProbability(2, 0.8).simulate(ExitLogits(logits), table)
    assert found.near.tolist() == [True, True, False]
    situation = Situation(ExitLogits(logits, torch.zeros(3, dtype=torch.long)), table)
    chosen = MaxProbability.fitted(situation, Aim(budget=0.8))
    assert not chosen.simulate(ExitLogits(logits), table).near.any() or abs(chosen.threshold - 0.8) > 1e-8
