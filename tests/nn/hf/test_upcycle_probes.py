"""What looks like an MLP is run, and refused where it computes something else."""

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from gatewise.exceptions import InputError, UpcyclingWarning
from gatewise.nn.hf import upcycle
from gatewise.nn.hf.mlps import dense_mlps
from tests.nn.hf.dense_models import dense_model, logits_of


class OfFairseqsNames(nn.Module):
    """The names of a frame, and hidden units squared."""

    def __init__(self, mlp):
        super().__init__()
        self.fc1, self.fc2, self.activation_fn = mlp.up_proj, mlp.down_proj, nn.GELU()

    def forward(self, x):
        return self.fc2(self.activation_fn(self.fc1(x)) ** 2)


class OfBertsNames(nn.Module):
    """Two parts with the names of a frame, and a norm before the first matrix or between both."""

    def __init__(self, mlp, before):
        super().__init__()
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense, self.output.dense = mlp.up_proj, mlp.down_proj
        self.intermediate.intermediate_act_fn = nn.GELU()
        self.before = before
        self.norm = nn.LayerNorm(32 if before else 48)

    def forward(self, x):
        x = self.norm(x) if self.before else x
        hidden = self.intermediate.intermediate_act_fn(self.intermediate.dense(x))
        return self.output.dense(hidden if self.before else self.norm(hidden))


class Between(nn.Module):
    """A gated unit whose hidden units are changed."""

    def __init__(self, mlp, change):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self._change = change

    def forward(self, x):
        return self.down_proj(self._change(nn.functional.silu(self.gate_proj(x))) * self.up_proj(x))


STRANGE = {
    "square": OfFairseqsNames,
    "norm before": lambda mlp: OfBertsNames(mlp, before=True),
    "norm between": lambda mlp: OfBertsNames(mlp, before=False),
    "factor": lambda mlp: Between(mlp, lambda hidden: 0.9 * hidden),
    "bound that only large tokens meet": lambda mlp: Between(mlp, lambda hidden: hidden.clamp(max=3.0)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", STRANGE)
def test_what_computes_something_else_is_refused(case, dtype):
    model = dense_model("llama")
    model.model.layers[0].mlp = STRANGE[case](model.model.layers[0].mlp)
    with pytest.raises(InputError, match="computes something else"):
        upcycle(model.to(dtype), 4, layers=[0])


def test_a_norm_before_the_first_matrix_of_a_real_model_is_refused():
    from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    with pytest.raises(InputError, match="computes something else"):
        upcycle(RobertaPreLayerNormForMaskedLM(RobertaPreLayerNormConfig(**sizes, num_attention_heads=4)), 4)


def test_an_mlp_that_computes_with_its_matrix_itself_is_refused():
    with pytest.raises(InputError, match="computes something else"):
        upcycle(dense_model("bloom", pretraining_tp=2, slow_but_exact=True), 4)


def test_matrices_of_two_types_are_refused_by_their_types():
    model = dense_model("t5").half()
    for name, module in model.named_modules():
        if name.endswith(".wo"):
            module.float()
    with pytest.raises(InputError, match=r"are in torch\.float16 and torch\.float32: cast the model to one of them"):
        upcycle(model, 4)


def test_dropouts_that_are_no_modules_are_seen():
    found = {
        name: {mlp.random for mlp in dense_mlps(model).mlps}
        for name, model in {
            "function": dense_model("starcoder2", residual_dropout=0.01),
            "none": dense_model("starcoder2", residual_dropout=0.0),
            "module": dense_model("gpt2", resid_pdrop=0.3),
        }.items()
    }
    assert found == {"function": {True}, "none": {False}, "module": {False}}
    with pytest.warns(UpcyclingWarning, match="had a dropout that is no module of its own"):
        upcycle(dense_model("starcoder2", residual_dropout=0.01), 4)


def test_the_model_is_not_touched_by_the_test():
    model = dense_model("bart").train()
    before, modes = logits_of(model.eval()), {name: part.train().training for name, part in model.named_modules()}
    random = torch.get_rng_state()
    dense_mlps(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert torch.equal(logits_of(model.eval()), before)


@pytest.mark.parametrize("at_first", [True, False])
def test_undoing_takes_the_mode_of_the_model(at_first):
    model = dense_model("gpt2").train(at_first)
    upcycled = upcycle(model, 4)
    model.train(not at_first)
    upcycled.undo()
    assert {part.training for part in model.modules()} == {not at_first}
    with pytest.raises(InputError, match="are not in the model any more"):
        upcycled.undo()
