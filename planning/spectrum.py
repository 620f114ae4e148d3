"""Of which rank is the difference of two matrices? Randomised SVD over blocks of rows. Pure.

Halko, Martinsson and Tropp, "Finding structure with randomness" (2011), algorithms 4.4 and 5.1: a random
sketch of the rows' space, refined by passing over the matrix again, then the SVD of a small matrix. Nothing
here ever holds the whole matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OVERSAMPLED = 16  # columns of the sketch beyond the rank that is looked for
REFINED = 1  # times that the sketch is sharpened by two more passes; it is wide, so that once is enough
HIDDEN = 4.0  # times what rounding alone makes: a difference of less tells little
LOST = 1e-6  # of the largest: directions below it are the rounding of 32-bit numbers
SEED = 7  # one matrix gives one answer
EDGE = 1.5  # times the largest singular value that rounding alone lets expect: what counts as above it

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a difference."""

    first: int  # the first of the rows
    rows: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The largest singular values of a difference, and their vectors."""

    values: NDArray[np.float64]  # falling
    left: NDArray[np.float64]  # rows x values
    right: NDArray[np.float64]  # values x columns
    energy: float  # of the whole difference: the sum of all squared singular values
    rounding: float  # of that, what rounding alone lets expect

    @property
    def change(self) -> float:
        """The energy that is not rounding."""
        return max(0.0, self.energy - self.rounding)

    @property
    def is_hidden(self) -> bool:
        """Whether rounding makes so much of the difference that little can be told of the change."""
        return self.energy < HIDDEN * self.rounding

    def rank_keeping(self, part: float) -> int | None:
        """Return the rank that keeps this part of the change; None: more than was looked for."""
        if self.change <= 0:
            return 0
        reached = np.flatnonzero(np.cumsum(self.values**2) >= part * self.change)
        return int(reached[0]) + 1 if len(reached) else None

    def rank_above_rounding(self) -> int | None:
        """Return how many singular values are more than rounding; None: all that were looked for."""
        rows, columns = self.left.shape[0], self.right.shape[1]
        per_number = (self.rounding / (rows * columns)) ** 0.5
        # The largest singular value of a matrix of independent numbers: their deviation by this sum.
        edge = max(EDGE * per_number * (rows**0.5 + columns**0.5), LOST * float(self.values[0]))
        above = int(np.sum(self.values > edge))
        return None if above == len(self.values) else above

    def kept(self, rank: int) -> float:
        """Return the part of the change that a rank keeps, 0..1."""
        return min(1.0, float(np.sum(self.values[:rank] ** 2)) / self.change) if self.change > 0 else 1.0


def spectrum(
    shape: tuple[int, int], blocks: Callable[[], Iterable[Block]], most: int, *, rounding: float = 0.0
) -> Spectrum:
    """Return the largest `most` singular values of a matrix of this shape.

    `blocks` gives all its rows, in order, each time that it is called. `rounding` is the variance that
    storing the numbers has added to each, on average.
    """
    rows, columns = shape
    width = min(rows, columns, most + OVERSAMPLED)
    sketch = np.random.default_rng(SEED).standard_normal((columns, width)).astype(np.float32)
    product, energy = _times(rows, blocks, sketch)
    left = _basis(product)
    for _ in range(REFINED):
        right = _basis(_transposed_times(columns, blocks, left))
        left = _basis(_times(rows, blocks, right)[0])
    small = _transposed_times(columns, blocks, left).astype(np.float64)  # the matrix in the basis `left`
    squares, turned = np.linalg.eigh(small.T @ small)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    kept = min(most, width)
    held = min(kept, int(np.sum(values > LOST * values.max(initial=0.0))))
    turned = turned[:, ::-1][:, :held]
    beyond = kept - held  # a matrix of lower rank: the other values are 0
    return Spectrum(
        values=np.pad(values[:held], (0, beyond)),
        left=np.pad(left.astype(np.float64) @ turned, ((0, 0), (0, beyond))),
        right=np.pad((small @ turned / values[:held]).T, ((0, beyond), (0, 0))),
        energy=energy,
        rounding=rounding * rows * columns,
    )


def _basis(vectors: Matrix) -> Matrix:
    """Return an orthonormal basis of what some columns span, without directions that are rounding.

    By the eigenvalues of their products: many times faster than QR where columns are few and long.
    """
    exact = vectors.astype(np.float64)
    if not exact.any():
        return vectors[:, :0]
    squares, turned = np.linalg.eigh(exact.T @ exact)
    good = squares > LOST**2 * max(float(squares[-1]), 1e-300)
    basis = exact @ (turned[:, good] / np.sqrt(squares[good]))
    found: Matrix = basis.astype(np.float32)
    return found


def _times(rows: int, blocks: Callable[[], Iterable[Block]], by: Matrix) -> tuple[Matrix, float]:
    """Return the matrix times another one, and the matrix's energy."""
    product = np.empty((rows, by.shape[1]), dtype=np.float32)
    energy = 0.0
    for block in blocks():
        product[block.first : block.first + len(block.rows)] = block.rows @ by
        energy += float(np.vdot(block.rows, block.rows).real)
    return product, energy


def _transposed_times(columns: int, blocks: Callable[[], Iterable[Block]], by: Matrix) -> Matrix:
    product = np.zeros((columns, by.shape[1]), dtype=np.float32)
    for block in blocks():
        product += block.rows.T @ by[block.first : block.first + len(block.rows)]
    return product
