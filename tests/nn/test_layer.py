"""The sparse layer: four paths that agree, no token lost, padding left alone."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from gatewise.exceptions import EqualLogitsWarning, InputError
from gatewise.gates import SoftmaxGate, build_gate
from gatewise.nn import GLUBank, MLPBank, Router, Selection, SparseMoE, dispatch, initialise_router

D, HIDDEN, E = 16, 24, 6


def with_biases(kind):
    """Banks of a kind whose biases are not 0."""

    def make(*sizes):
        bank = kind(*sizes, bias=True)
        with torch.no_grad():
            for value in bank.weights():
                if value.ndim == 2:
                    value.normal_(generator=torch.Generator().manual_seed(1))
        return bank

    return make


banks = pytest.mark.parametrize(
    "bank", [GLUBank, MLPBank, with_biases(GLUBank), with_biases(MLPBank)], ids=["glu", "mlp", "glu+b", "mlp+b"]
)


def layer_of(seed=0, **options):
    torch.manual_seed(seed)
    gate = SoftmaxGate(D, E)
    initialise_router(gate, std=0.5)
    return SparseMoE(D, Router(gate, Selection(top_k=2)), hidden=HIDDEN, **options)


def tokens(*shape, dtype=torch.float32):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(5), dtype=dtype)


def outcome(bank, x, weights, indices, path):
    """The output and all gradients of one path."""
    x, weights = x.clone().requires_grad_(), weights.clone().requires_grad_()
    bank.zero_grad()
    y = dispatch(bank, x, weights, indices, path)
    (y * torch.linspace(-1.0, 1.0, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    return [y.detach(), x.grad, weights.grad, *(weight.grad.clone() for weight in bank.weights())]


@banks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("top_k", [1, 2, E])
def test_all_paths_agree_with_a_loop_over_tokens(bank, dtype, top_k):
    torch.manual_seed(0)
    experts = bank(E, D, HIDDEN).to(dtype)
    x = tokens(40, dtype=dtype)
    weights, indices = Selection(top_k=top_k)(torch.randn(40, E, dtype=dtype))
    # Expert 3 has no token: its part of every path is empty.
    indices = torch.where(indices == 3, 2, indices) if top_k == 1 else indices
    networks = experts.networks()
    with torch.no_grad():
        plain = torch.stack(
            [
                sum(w * networks[e](t) for w, e in zip(ws, es, strict=True))
                for t, ws, es in zip(x, weights, indices.tolist(), strict=True)
            ]
        )
    paths = ["sorted", "dense", "naive", *(["grouped"] if dtype == torch.float32 else [])]
    found = {path: outcome(experts, x, weights, indices, path) for path in paths}
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(found["sorted"][0], plain, **close)
    for path in paths[1:]:
        for a, b in zip(found["sorted"], found[path], strict=True):
            torch.testing.assert_close(b, a, **close)


@banks
def test_gradients_are_those_of_finite_differences(bank):
    torch.manual_seed(0)
    gate = SoftmaxGate(3, 4)
    initialise_router(gate, std=1.0)
    layer = SparseMoE(3, Router(gate), bank(4, 3, 5, "tanh")).double()
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)


def test_all_experts_chosen_is_the_dense_mixture():
    torch.manual_seed(0)
    gate = build_gate("cosine", D, E)
    layer = SparseMoE(D, Router(gate, Selection(top_k=E)), "mlp", hidden=HIDDEN).double()
    x = tokens(30, dtype=torch.float64)
    outputs = torch.stack([network(x) for network in layer.experts.networks()], 1)
    mixture = (layer.router.gate(x).exp().unsqueeze(-1) * outputs).sum(1)
    torch.testing.assert_close(layer(x), mixture, rtol=1e-12, atol=1e-12)


def test_shared_experts_are_added_with_weight_one():
    layer = layer_of(n_shared=2)
    x = tokens(10)
    alone = dispatch(layer.experts, x, *layer.router(x)[1:])
    shared = sum(network(x) for network in layer.shared.networks())
    torch.testing.assert_close(layer(x), alone + shared)


def test_shared_experts_have_the_form_of_the_others():
    layer = SparseMoE(D, "softmax", MLPBank(E, D, HIDDEN, torch.nn.Tanh(), bias=True), n_shared=1)
    assert (layer.shared.n_experts, layer.shared.hidden, layer.shared.bias) == (1, HIDDEN, True)
    assert layer.shared.activation == layer.experts.activation == "Tanh"
    bank, x = layer.shared, tokens(4)
    plain = torch.tanh(x @ bank.up[0].T + bank.up_bias[0]) @ bank.down[0].T + bank.down_bias[0]
    torch.testing.assert_close(bank.networks()[0](x), plain)


def test_an_activation_that_learns_is_one_for_all_experts_and_is_trained_and_saved():
    layer = SparseMoE(D, "softmax", MLPBank(E, D, HIDDEN, torch.nn.PReLU()))
    assert "experts._function.weight" in layer.state_dict()
    layer(tokens(20)).square().sum().backward()
    assert layer.experts._function.weight.grad is not None


def test_padding_is_neither_routed_nor_changed_into_anything():
    layer = layer_of()
    x = tokens(3, 7)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[0, 4:] = mask[2] = False
    x[~mask] = float("nan")
    seen = []
    layer.router.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    y = layer(x, mask)
    assert seen == [int(mask.sum())]
    assert (y[~mask] == 0.0).all()
    torch.testing.assert_close(y[mask], layer(x[mask]))
    # Nothing but padding.
    assert (layer(x, torch.zeros_like(mask)) == 0.0).all()


def test_no_token_is_dropped_unless_there_is_a_capacity():
    """With equal logits all tokens go to the same two experts."""
    with pytest.warns(EqualLogitsWarning, match=r"goes to the same 2 of .* call gatewise\.nn\.initialise_router"):
        layer = SparseMoE(D, Router(SoftmaxGate(D, E)), "mlp", hidden=HIDDEN)
    x = tokens(60)
    full = layer(x)
    assert layer.n_dropped == 0
    layer.capacity = 1.0
    cut = layer(x)
    # Each of the two takes ⌈2 · 60 / 6⌉ = 20 of its 60.
    assert layer.n_dropped == 80
    torch.testing.assert_close(cut[:20], full[:20])
    assert (cut[20:] == 0.0).all()


def test_checkpointing_changes_nothing():
    layer, x = layer_of(), tokens(20)
    plain, again = x.clone().requires_grad_(), x.clone().requires_grad_()
    layer(plain).square().sum().backward()
    expected = [weight.grad.clone() for weight in layer.parameters()]
    layer.zero_grad()
    checkpoint(layer, again, use_reentrant=False).square().sum().backward()
    assert torch.equal(plain.grad, again.grad)
    for weight, gradient in zip(layer.parameters(), expected, strict=True):
        assert torch.equal(weight.grad, gradient)


# Dynamo looks at `.grad` of everything that it traces, and torch warns of that.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_it_gives_the_same():
    layer, x = layer_of(), tokens(20)
    expected = layer(x)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager")(x), expected)


def test_autocast_runs_the_experts_in_bfloat16_and_the_router_in_float32():
    layer, x = layer_of(), tokens(20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    # bfloat16 has eight bits, and a sum of 24 products a few of their roundings.
    torch.testing.assert_close(found.float(), layer(x), rtol=0.05, atol=0.05)


def test_it_is_saved_and_loaded_by_safetensors(tmp_path):
    layer, x = layer_of(n_shared=1), tokens(20)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = layer_of(seed=1, n_shared=1)
    assert not torch.equal(other(x), layer(x))
    other.load_state_dict(load_file(tmp_path / "layer.safetensors"), strict=True)
    assert torch.equal(other(x), layer(x))


def test_two_processes_average_their_gradients(tmp_path):
    """Data parallel on loopback: half of the rows on each rank, the gradients of the whole batch on both."""
    # Two processes of one that has loaded torch, and not yet computed anything.
    script = tmp_path / "ranks.py"
    script.write_text(
        "import os, sys, torch\n"
        "import torch.distributed as dist\n"
        "from torch.nn.parallel import DistributedDataParallel\n"
        "from gatewise.gates import SoftmaxGate\n"
        "from gatewise.nn import Router, Selection, SparseMoE, initialise_router\n"
        "from gatewise.nn.balance import BiasBalancer\n"
        "other = os.fork()\n"
        "rank, where = int(other > 0), sys.argv[1]\n"
        "dist.init_process_group('gloo', init_method=f'file://{where}', rank=rank, world_size=2)\n"
        "torch.manual_seed(0)\n"
        "gate = SoftmaxGate(8, 4)\n"
        "initialise_router(gate, std=0.5)\n"
        "router = Router(gate, Selection(top_k=2, score='sigmoid'), correction_bias=True)\n"
        "layer = SparseMoE(8, router, hidden=8)\n"
        "x = torch.randn(20, 8)\n"
        "layer(x).square().mean().backward()\n"
        "single = [p.grad.clone() for p in layer.parameters()]\n"
        "alone = BiasBalancer(router, rate=0.1)\n"
        "layer.zero_grad()\n"
        "both = DistributedDataParallel(layer, find_unused_parameters=True)\n"
        "both(x[10 * rank : 10 * rank + 10]).square().mean().backward()\n"
        "for p, g in zip(layer.parameters(), single, strict=True):\n"
        "    torch.testing.assert_close(p.grad, g, rtol=1e-5, atol=1e-6)\n"
        "alone.step()\n"
        "moved = router.correction_bias.clone()\n"
        "router.correction_bias.zero_()\n"
        "counts = torch.bincount(router(x)[2].reshape(-1), minlength=4).double()\n"
        "expected = 0.1 * torch.sign(counts.mean() - counts)\n"
        "torch.testing.assert_close(moved, (expected - expected.mean()).float())\n"
        "dist.destroy_process_group()\n"
        "sys.exit(rank and os.waitpid(other, 0)[1])\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-W", "error::UserWarning:gatewise", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(tmp_path / "store")], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SparseMoE(D), "n_experts is missing"),
        (lambda: SparseMoE(D, SoftmaxGate(8, 4)), "tokens have d = 16, the gate reads 8 features"),
        (lambda: SparseMoE(D, SoftmaxGate(D, 4), GLUBank(5, D, 8)), "the router has 4 experts, the bank 5"),
        (lambda: SparseMoE(D, SoftmaxGate(D, 4), "moe"), "experts must be a bank or one of 'mlp', 'glu'"),
        (lambda: SparseMoE(D, SoftmaxGate(D, 4), capacity=0.0), "capacity must be a positive number"),
        (lambda: SparseMoE(D, SoftmaxGate(D, 4), capacity="all"), "capacity must be a positive number, not 'all'"),
        (lambda: SparseMoE(D, SoftmaxGate(D, 4), capacity=True), "capacity must be a positive number, not True"),
        (lambda: SparseMoE(D, Router(SoftmaxGate(D, 4), Selection(method="expert_choice")), capacity=1.0), "leave out"),
        (lambda: SparseMoE(D, n_experts=0), "n_experts must be a whole number from 1 on, not 0"),
        (lambda: SparseMoE(D, n_experts=-1), "n_experts must be a whole number"),
        (lambda: SparseMoE(D, n_experts=4.0), "n_experts must be a whole number"),
        (lambda: SparseMoE(16.0, n_experts=4), "d must be a whole number"),
        (lambda: SparseMoE(D, n_experts=4, path="fast"), "the path must be one of 'auto'"),
        (lambda: SparseMoE(D, 5, n_experts=4), "a router needs a gate of gatewise.gates, not int"),
        (lambda: SparseMoE(D, torch.nn.Linear(D, 4), n_experts=4), "a router needs a gate"),
        (lambda: SparseMoE(D, "softmax", 5, n_experts=4), "experts must be a bank or one of"),
        (lambda: layer_of()(torch.tensor(1.0)), "not a single number"),
        (lambda: layer_of().bfloat16()(tokens(3)), "tokens are torch.float32 and the experts torch.bfloat16: cast"),
        (lambda: layer_of()(tokens(3).double()), "tokens are torch.float64 and the experts torch.float32: cast"),
        (lambda: SparseMoE(D, SoftmaxGate(D, 4), n_shared=-1), "n_shared must be a whole number"),
        (lambda: SparseMoE(D, "nothing", n_experts=4), "nothing"),
        (lambda: GLUBank(0, D, 8), "n_experts must be a whole number"),
        (lambda: layer_of()(torch.zeros(3, 5)), "the layer takes tokens of length 16, not 5"),
        (lambda: layer_of()(tokens(3), torch.ones(4, dtype=torch.bool)), "the mask must be of booleans"),
        (lambda: layer_of(path="fast")(tokens(3)), "the path must be one of 'auto'"),
        (lambda: layer_of(path="grouped").double()(tokens(3).double()), "take path='sorted'"),
    ],
)
def test_what_cannot_be_has_its_sentence(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.mark.parametrize("path", ["sorted", "grouped", "dense", "naive"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_batch_of_padding_alone(path, autocast):
    """Its output is 0, and all parameters have a gradient, so that ranks with and without tokens wait for the same."""
    layer, x = layer_of(path=path, n_shared=1, capacity=1.0), tokens(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y, empty = layer(x, torch.zeros(2, 3, dtype=torch.bool)), layer(x[:0])
        assert y.dtype == empty.dtype == layer(x).dtype
    assert torch.equal(y, torch.zeros_like(y))
    assert empty.shape == (0, 3, D)
    (y.sum() + empty.sum()).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad == 0.0).all(), name


@pytest.mark.parametrize("method", ["top_k", "expert_choice"])
def test_none_or_one_token(method):
    layer = SparseMoE(D, "softmax", n_experts=E, selection=Selection(method=method), hidden=HIDDEN)
    for shape in ((0, D), (1, D), (D,)):
        assert layer(torch.ones(shape)).shape == shape


def test_shapes_on_the_meta_device():
    assert layer_of(n_shared=1).to("meta")(torch.empty(2, 3, D, device="meta")).shape == (2, 3, D)


def test_what_was_dropped_is_forgotten_with_the_capacity():
    layer = layer_of(capacity=1e-9)
    layer(tokens(20))
    # Each of the six takes one.
    assert layer.n_dropped == 40 - E
    layer.capacity = 1e300
    layer(tokens(20))
    assert layer.n_dropped == 0
    layer.capacity = 1e-9
    layer(tokens(20))
    layer.capacity = None
    layer(tokens(20))
    assert layer.n_dropped == 0


def test_the_same_bits_again():
    layer, x = layer_of(), tokens(300)
    found = []
    for _ in range(2):
        layer.zero_grad()
        y = layer(x)
        y.square().sum().backward()
        found.append([y, *(parameter.grad.clone() for parameter in layer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def sent(**changes):
    """What `dispatch` makes of four good arguments, but for the changes."""
    good = {
        "bank": MLPBank(E, D, HIDDEN),
        "x": tokens(5),
        "weights": torch.full((5, 2), 0.5),
        "indices": torch.tensor([[0, 1]] * 5),
    }
    return dispatch(**{**good, **changes})


@pytest.mark.parametrize("path", ["sorted", "grouped", "dense", "naive"])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": torch.zeros(5, 3)}, "tokens must be .T, 16."),
        ({"x": torch.zeros(1, 5, D)}, "tokens must be .T, 16."),
        ({"x": torch.zeros(3, D)}, "must both be .T, K. with T = 3 tokens"),
        ({"weights": torch.ones(5, 1)}, "must both be .T, K."),
        ({"indices": torch.tensor([[0, 1]] * 4)}, "must both be .T, K."),
        ({"indices": torch.tensor([[0, 6]] * 5)}, "between 0 and 5, and they go from 0 to 6"),
        ({"indices": torch.tensor([[-1, 1]] * 5)}, "between 0 and 5, and they go from -1 to 1"),
        ({"indices": torch.zeros(5, 2)}, "indices must be of int64, not torch.float32"),
        ({"x": torch.zeros(5, D, dtype=torch.bfloat16)}, "tokens are torch.bfloat16 and the experts torch.float32"),
        ({"x": torch.zeros(5, D, dtype=torch.int64)}, "tokens are torch.int64 and the experts torch.float32"),
    ],
)
def test_what_cannot_be_sent_has_its_sentence(path, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        sent(path=path, **changes)


def test_indices_may_be_short_integers():
    for path in ("sorted", "grouped", "dense", "naive"):
        assert sent(path=path, indices=torch.tensor([[0, 1]] * 5, dtype=torch.int32)).shape == (5, D)


def test_every_gate_can_be_named_with_its_options():
    layer = SparseMoE(D, "top_k", n_experts=E, hidden=8)
    assert layer.router.selection.top_k == 1
    layer = SparseMoE(D, "top_k", n_experts=E, hidden=8, gate_options={"n_active": 3, "inner": "cosine"})
    assert layer.router.selection.top_k == 3
    assert layer(tokens(5)).shape == (5, D)
    with pytest.raises(InputError, match="gate_options belong to a gate that is made from its name"):
        SparseMoE(D, SoftmaxGate(D, E), gate_options={})


def test_a_bias_that_cannot_change_the_choice_is_refused():
    gate = build_gate("top_k", D, E, n_active=2)
    with pytest.raises(InputError, match="the selection takes all of them, so that a bias changes nothing"):
        Router(gate, Selection(top_k=2), correction_bias=True)
    Router(gate, Selection(top_k=1), correction_bias=True)
