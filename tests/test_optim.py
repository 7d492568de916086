"""Muon: orthogonal steps for kernels, Adam's for the rest, both unchanged by a resume."""

import pytest
import torch
from torch import nn

from stylenet.optim import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 8), (6, 45), (45, 6)])
def test_singular_values_are_near_one(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3 and values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(found.flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_a_step_of_a_kernel_has_the_size_of_adams():
    """The root mean square is 0.2 lr, whatever the gradient's scale."""
    for scale in (1e-6, 1e3):
        conv = nn.Conv2d(16, 24, 3, bias=False)
        before = conv.weight.detach().clone()
        conv.weight.grad = scale * torch.randn(
            conv.weight.shape, generator=torch.Generator().manual_seed(1)
        )
        Muon(conv.parameters(), lr=0.01).step()
        assert float((conv.weight.detach() - before).square().mean().sqrt()) == pytest.approx(
            0.2 * 0.01, rel=0.3
        )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (40, 3, 3, 3)])
def test_kernels_move_along_nesterovs_momentum(shape, layout):
    """The step equals plain formulas, for wide and tall matrices in both layouts."""
    draw = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape, generator=draw).to(memory_format=layout))
    expected, momentum = kernel.detach().clone().reshape(shape), torch.zeros(shape)
    optimizer = Muon([kernel], lr=0.1)
    for _ in range(3):
        grad = torch.randn(shape, generator=draw)
        kernel.grad = grad.to(memory_format=layout)
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * grad
        direction = orthogonalised((0.05 * grad + 0.95 * momentum).flatten(1)).reshape(shape)
        expected = expected - 0.1 * 0.2 * max(shape[0], shape[1] * 9) ** 0.5 * direction
    torch.testing.assert_close(kernel.detach(), expected)
    assert optimizer.state[kernel]["momentum"].stride() == kernel.stride()


def test_weak_directions_are_raised_and_absent_ones_are_not():
    left, right = (
        torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(i)))[0]
        for i in (0, 1)
    )
    strengths = torch.tensor([1.0, 0.5, 0.05] + 29 * [0.0])
    found = torch.diagonal(left.T @ orthogonalised(left @ torch.diag(strengths) @ right.T) @ right)
    assert found[:3].min() > 0.6 and found[:3].max() < 1.3 and found[3:].abs().max() < 0.01


def test_biases_move_as_with_adam():
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0, 3.0])) for _ in range(2))
    steps = Muon([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.99))
    for i in range(5):
        for parameter, optimizer in zip((ours, theirs), steps, strict=True):
            parameter.grad = torch.tensor([0.5, -1.0, 1e-3]) * (i - 1.5)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_it_learns_and_resumes():
    """A regression is learnt.

    A run that is saved and loaded halfway ends at the same weights as an uninterrupted one.
    """
    x = torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    target = nn.Conv2d(3, 5, 3)(x).detach()

    def run(n_steps, state=None):
        torch.manual_seed(1)
        net = nn.Conv2d(3, 5, 3)
        optimizer = Muon(net.parameters(), lr=0.05)
        if state:
            net.load_state_dict(state[0])
            optimizer.load_state_dict(state[1])
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss = (net(x) - target).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item(), (net.state_dict(), optimizer.state_dict())

    first, _ = run(1)
    middle = run(20)[1]
    whole, (weights, _) = run(40)
    _, (resumed, _) = run(20, middle)
    assert whole < 0.1 * first
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
