from itertools import combinations

import torch

from foveate.ops.facility import facility_location


def objective(alike, bonus, picks):
    return float(alike[picks].amax(0).sum() + bonus[picks].sum())


def test_greedy_is_near_the_best_and_gains_never_grow():
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        x = torch.nn.functional.normalize(torch.randn(8, 3, generator=g), dim=1)
        alike, bonus = (x @ x.T + 1) / 2, torch.rand(8, generator=g)
        picks = facility_location(alike[None], bonus[None], 4)[0].tolist()
        values = [0.0] + [objective(alike, bonus, picks[:k]) for k in range(1, 5)]
        gains = [b - a for a, b in zip(values, values[1:], strict=False)]
        assert all(a >= b - 1e-5 for a, b in zip(gains, gains[1:], strict=False))
        best = max(objective(alike, bonus, list(c)) for c in combinations(range(8), 4))
        assert values[-1] >= (1 - 1 / 2.71828) * best
        step = max(range(8), key=lambda i: objective(alike, bonus, [i]))
        assert picks[0] == step


def test_copies_come_when_nothing_else_is_left():
    x = torch.eye(4).repeat(2, 1)
    picks = facility_location(((x @ x.T + 1) / 2)[None], torch.zeros(1, 8), 8)[0]
    assert sorted(picks[:4].tolist()) == [0, 1, 2, 3]
    assert sorted(picks.tolist()) == list(range(8))


def test_picks_are_those_of_trying_every_candidate_every_time():
    g = torch.Generator().manual_seed(1)
    x = torch.nn.functional.normalize(torch.randn(2, 60, 6, generator=g).double(), dim=2)
    alike, bonus = (x @ x.mT + 1) / 2, torch.rand(2, 60, generator=g).double()
    picks = facility_location(alike, bonus, 25)
    for b in range(2):
        chosen = []
        for _ in range(25):
            rest = [i for i in range(60) if i not in chosen]
            chosen.append(max(rest, key=lambda i: objective(alike[b], bonus[b], [*chosen, i])))
        assert picks[b].tolist() == chosen
