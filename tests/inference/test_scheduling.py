"""Which waiting rows run next: few pads, no row left behind, and what a pass costs."""

import random
from itertools import combinations, pairwise

import pytest

from softhub.inference.scheduling import PassCost, choose_batch, split_by_length


@pytest.mark.parametrize("pass_cost", [0.0, 64.0, 1e9])
@pytest.mark.parametrize("seed", range(20))
def test_the_next_batch_is_the_one_of_the_first_row(seed, pass_cost):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 200) for _ in range(rng.randint(1, 40))]
    chosen = choose_batch(lengths, 8, pass_cost)
    assert 0 in chosen
    assert chosen in split_by_length(lengths, 8, pass_cost)


def test_rows_of_one_length_fill_the_batch():
    assert len(choose_batch([30] * 50, 32, 64.0)) == 32


def test_a_long_row_does_not_widen_a_batch_of_short_ones():
    lengths = [10, 500, *[10] * 20]
    assert 1 not in choose_batch(lengths, 32, 64.0)
    assert choose_batch([500, *[10] * 20], 32, 64.0) == [0]


def test_where_passes_cost_the_same_whatever_their_size_there_are_few_batches():
    cost = PassCost()
    for tokens in (100, 2000, 400, 3000, 50, 800):
        cost.observe(tokens, 0.01)
    assert len(split_by_length([500, *[10] * 40], 32, cost.tokens)) == 2


@pytest.mark.parametrize("fixed", [10.0, 80.0, 1000.0])
def test_the_fixed_part_of_a_pass_is_found(fixed):
    cost, rng = PassCost(), random.Random(0)
    for _ in range(50):
        tokens = rng.randint(10, 1500)
        cost.observe(tokens, 0.002 * (tokens + fixed) * rng.uniform(0.7, 1.4))
    assert cost.tokens == pytest.approx(fixed, rel=0.5, abs=20)


def test_few_passes_or_passes_of_one_size_leave_the_typical_cost():
    unknown, cost = PassCost().tokens, PassCost()
    for _ in range(10):
        cost.observe(100, 0.1)
    assert cost.tokens == unknown


def test_a_pass_over_no_tokens_says_nothing():
    unknown, cost = PassCost().tokens, PassCost()
    for _ in range(10):
        cost.observe(0, 0.1)
    assert cost.tokens == unknown


def cost_of(lengths, batches, pass_cost):
    return sum(len(rows) * max(lengths[row] for row in rows) + pass_cost for rows in batches)


def all_divisions(rows, size):
    for count in range(len(rows)):
        for ends in combinations(range(1, len(rows)), count):
            bounds = [0, *ends, len(rows)]
            batches = [rows[a:b] for a, b in pairwise(bounds)]
            if max(map(len, batches)) <= size:
                yield batches


@pytest.mark.parametrize("pass_cost", [0.0, 16.0, 64.0, 1e9])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [4, 9])
def test_no_division_of_the_rows_costs_less(seed, size, pass_cost):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 60) for _ in range(9)]
    found = split_by_length(lengths, size, pass_cost)
    assert max(map(len, found)) <= size
    assert sorted(row for rows in found for row in rows) == list(range(9))
    order = sorted(range(9), key=lambda row: lengths[row])
    lowest = min(cost_of(lengths, each, pass_cost) for each in all_divisions(order, size))
    assert cost_of(lengths, found, pass_cost) == pytest.approx(lowest)


def test_there_are_no_batches_of_no_rows_and_one_of_rows_of_one_length():
    assert split_by_length([], 32, 64.0) == []
    assert split_by_length([7] * 20, 32, 64.0) == [list(range(20))]
