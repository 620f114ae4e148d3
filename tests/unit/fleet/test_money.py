"""Is a cost exact, and whose price holds?"""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.money import COST_UNITS, FACTOR_UNITS, OwnPrices, Price, Prices, price_of, why_not_renamed, written

UNITS = st.integers(0, 10**11)
TOKENS = st.integers(0, 10**7)
PRICES = Prices("EUR", {"base": Price(1, 1, 1), "lora": Price(2, 2, 2)})


@pytest.mark.parametrize(
    ("price", "tokens", "cost"),
    [
        (Price(200_000, 50_000, 600_000), (1000, 500, 400), "0.00044"),  # 600 x 0.2 + 400 x 0.05 + 500 x 0.6
        (Price(200_000, 50_000, 600_000), (10, 0, 99), "0.0000005"),  # cached are at most all of the prompt
        (Price(1, 1, 1), (499, 0, 0), "0"),  # 0.499 billionths
        (Price(1, 1, 1), (500, 0, 0), "0.000000001"),
        (Price(10**11, 0, 0), (10**6, 0, 0), "100000"),
        (Price(200_000, 0, 0, factor=5_000), (10**6, 0, 0), "0.1"),
        (Price(0, 0, 0), (10**6, 10**6, 0), "0"),
    ],
)
def test_tokens_cost_what_their_prices_say(price: Price, tokens: tuple[int, int, int], cost: str) -> None:
    assert written(price.cost(*tokens)) == cost


def test_time_costs_by_the_hour() -> None:
    price = Price(0, 0, 0, slot_hour=3_600_000, engine_hour=7_200_000)
    assert price.counts_time and not Price(1, 1, 1).counts_time
    assert written(price.cost(0, 0, slot_s=0.25, engine_s=1.5)) == "0.00325"


@given(UNITS, UNITS, UNITS, TOKENS, TOKENS, st.integers(0, 100 * FACTOR_UNITS))
def test_a_cost_is_off_by_half_a_billionth_at_most(
    input_: int, cached_input: int, output: int, prompt: int, completion: int, factor: int
) -> None:
    cached = prompt // 3
    cost = Price(input_, cached_input, output, factor=factor).cost(prompt, completion, cached)
    exact = Fraction((prompt - cached) * input_ + cached * cached_input + completion * output, 10**12)
    assert abs(Fraction(cost, COST_UNITS) - exact * Fraction(factor, FACTOR_UNITS)) <= Fraction(
        1, 2 * COST_UNITS
    )


@pytest.mark.parametrize(
    ("own", "adapter", "found"),
    [
        (None, None, Price(1, 1, 1)),
        (None, "lora", Price(2, 2, 2)),
        (None, "another", Price(1, 1, 1)),
        (OwnPrices(5_000), "lora", Price(2, 2, 2, factor=5_000)),
        (OwnPrices(5_000, {"base": Price(3, 3, 3)}), "lora", Price(3, 3, 3)),
        (OwnPrices(5_000, {"base": Price(3, 3, 3), "lora": Price(4, 4, 4)}), "lora", Price(4, 4, 4)),
    ],
)
def test_a_tenants_own_price_comes_first_then_the_fleets_times_its_factor(
    own: OwnPrices | None, adapter: str | None, found: Price
) -> None:
    assert price_of(PRICES, own, adapter, "base") == found


def test_without_prices_nothing_has_one() -> None:
    assert price_of(None, OwnPrices(), "lora", "base") is None
    assert price_of(PRICES, None, None, "other") is None


@pytest.mark.parametrize(
    ("units", "text"),
    [(0, "0"), (1, "0.000000001"), (10**9, "1"), (10**20, "100000000000"), (-5 * 10**8, "-0.5")],
)
def test_an_amount_is_written_without_an_exponent(units: int, text: str) -> None:
    assert written(units) == text


def test_a_currency_is_not_renamed_while_amounts_in_it_are_summed() -> None:
    other = Prices("USD", PRICES.models)
    (reason,) = why_not_renamed(PRICES, other)
    assert reason.startswith("prices: currency EUR -> USD: ") and "restart" in reason
    assert why_not_renamed(PRICES, Prices("EUR", {})) == why_not_renamed(None, other) == []
    assert why_not_renamed(PRICES, None) == []
