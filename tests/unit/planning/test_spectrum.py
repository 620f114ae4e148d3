"""The rank of a difference: found where there is one, not found where there is none, whatever the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from planning.spectrum import Block, Matrix, spectrum


def in_blocks(matrix: Matrix, rows: int = 7) -> Callable[[], Iterator[Block]]:
    def blocks() -> Iterator[Block]:
        for first in range(0, len(matrix), rows):
            yield Block(first, matrix[first : first + rows])

    return blocks


def of_rank(rank: int, rows: int = 96, columns: int = 64) -> Matrix:
    chance = np.random.default_rng(rank)
    left, right = chance.standard_normal((rows, rank)), chance.standard_normal((rank, columns))
    return (left @ right).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 8, 30])
@pytest.mark.parametrize("shape", [(96, 64), (64, 96)])
def test_a_low_rank_is_found_and_its_matrix_comes_back(rank: int, shape: tuple[int, int]) -> None:
    matrix = of_rank(rank, *shape)
    found = spectrum(shape, in_blocks(matrix), 40)
    assert found.rank_above_rounding() == rank
    keeping = found.rank_keeping(0.99)
    assert keeping is not None
    assert keeping <= rank
    assert found.kept(rank) == pytest.approx(1.0, abs=1e-5)
    again = found.left[:, :rank] * found.values[:rank] @ found.right[:rank]
    assert np.abs(again - matrix).max() < 1e-3


def test_values_are_those_of_a_whole_decomposition() -> None:
    matrix = np.random.default_rng(1).standard_normal((80, 50)).astype(np.float32)
    found = spectrum((80, 50), in_blocks(matrix), 50)
    assert found.values == pytest.approx(np.linalg.svd(matrix, compute_uv=False), rel=1e-3)
    assert found.energy == pytest.approx(float(np.sum(matrix**2)), rel=1e-5)


def test_a_full_rank_is_more_than_was_looked_for() -> None:
    matrix = np.random.default_rng(2).standard_normal((128, 128)).astype(np.float32)
    found = spectrum((128, 128), in_blocks(matrix), 16)
    assert found.rank_above_rounding() is None
    assert found.rank_keeping(0.99) is None
    assert found.kept(16) < 0.6


def test_rounding_hides_no_rank_and_makes_none() -> None:
    """A change of rank 8, stored with fewer digits: each number is off a little, in all directions."""
    matrix = of_rank(8, 256, 256) * 1e-2
    step = 0.03
    rounded = (np.round(matrix / step) * step).astype(np.float32)
    found = spectrum((256, 256), in_blocks(rounded), 40, rounding=step**2 / 12)
    assert found.rank_above_rounding() == 8
    assert (found.rank_keeping(0.95) or 99) <= 9
    assert spectrum((256, 256), in_blocks(rounded), 40).rank_above_rounding() is None


def test_a_change_that_drowns_in_rounding_is_said_to_be_hidden() -> None:
    matrix = of_rank(2) * 1e-3
    assert spectrum((96, 64), in_blocks(matrix), 8, rounding=1e-6).is_hidden
    assert not spectrum((96, 64), in_blocks(matrix), 8).is_hidden


def test_no_difference_has_no_rank() -> None:
    found = spectrum((10, 6), in_blocks(np.zeros((10, 6), dtype=np.float32)), 4)
    assert found.rank_keeping(0.99) == 0
    assert found.kept(0) == 1.0
