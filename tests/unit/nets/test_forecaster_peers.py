"""The straight line over pairs: the sum written down, who is left out of it, and that it is learned like a regression."""

import numpy as np
import torch
from numpy.testing import assert_allclose

from cryptoalpha.nets.forecaster.peers import PeerLine

B, S, N, F, Z, H, R = 2, 3, 4, 5, 6, 2, 3


def line(seed: int = 0) -> PeerLine:
    generator = torch.Generator().manual_seed(seed)
    net = PeerLine(F, Z, H, readings=R).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return net


def given(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(B, S, N, F, generator=generator, dtype=torch.float64)
    pairs = torch.randn(B, S, N, N, Z, generator=generator, dtype=torch.float64)
    return features, pairs, torch.rand(B, S, N, generator=generator) < 0.7


@torch.no_grad()
def test_it_is_the_sum_over_present_peers():
    net, (features, pairs, present) = line(), given()
    found = net(features, pairs, present).numpy()
    scale, shift = net.norm.weight.numpy(), net.norm.bias.numpy()
    for b, s, i in np.ndindex(B, S, N):
        peers = [j for j in range(N) if j != i and bool(present[b, s, j])]
        total = np.zeros(H)
        for j in peers:
            z = pairs[b, s, i, j].numpy()
            normed = (z - z.mean()) / np.sqrt(z.var() + 1e-5) * scale + shift
            weights = (net.weigh.weight.numpy() @ normed + net.weigh.bias.numpy()).reshape(H, R)
            total += weights @ (net.read.weight.numpy() @ features[b, s, j].numpy())
        assert_allclose(found[b, s, i], total / np.sqrt(max(len(peers), 1)), atol=1e-12)


@torch.no_grad()
def test_an_asset_is_no_peer_of_its_own_and_who_is_absent_says_nothing():
    net, (features, pairs, present) = line(), given()
    before = net(features, pairs, present)
    other = pairs + 7.0 * torch.randn(1, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * torch.eye(N)[:, :, None]
    assert torch.equal(net(features, other, present), before)
    assert torch.equal(net(torch.where(present.unsqueeze(-1), features, 50.0), pairs, present), before)
    alone = torch.zeros_like(present)
    alone[..., 0] = True
    assert torch.equal(net(features, pairs, alone)[..., 0, :], torch.zeros(B, S, H, dtype=torch.float64))


def test_it_begins_at_zero_and_learns_an_edge_through_pairs_at_once():
    torch_seed = torch.Generator().manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = PeerLine(F, Z, 1)
    features = torch.randn(40, 10, N, F, generator=torch_seed)
    pairs = torch.randn(40, 10, N, N, Z, generator=torch_seed)
    present = torch.ones(40, 10, N, dtype=torch.bool)
    assert torch.equal(net(features, pairs, present), torch.zeros(40, 10, N, 1))
    peers = 1.0 - torch.eye(N)
    edge = torch.einsum("bsij,bsj->bsi", (pairs[..., 0] - pairs[..., 1]) * peers, features[..., 0]) / 3**0.5
    wanted = edge + torch.randn(edge.shape, generator=torch_seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(100):
        optimiser.zero_grad()
        (net(features, pairs, present)[..., 0] - wanted).square().mean().backward()
        optimiser.step()
    found = net(features, pairs, present)[..., 0].detach()
    assert float(torch.corrcoef(torch.stack((found.flatten(), edge.flatten())))[0, 1]) > 0.9
