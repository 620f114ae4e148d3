"""docs/configuration.md and the example: every key is there, with the default it really has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fleet import fields, load_fleet_with_warnings, prices, read_fleet, schema, settings
from fleet.diff import ENGINES, RESTART
from fleet.sharing import who_shares
from fleet.types import Band, Isolation
from tests.unit.fleet.files import problems

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs/configuration.md").read_text()
EXAMPLE = ROOT / "docs/examples/llama-3-8b-h100.yaml"
KEYS = ("HELIOS_API_KEY", "HELIOS_API_KEY_NEXT", "ORCHID_API_KEY", "BASTION_API_KEY", "OPERATOR_KEY")
ENV = {name: f"{name.lower()}-of-the-test-fleet" for name in KEYS}

SECTIONS = {
    "`base_models`": schema.BaseModelSection,
    "`media_tokens`": schema.MediaTokensSection,
    "`media`": schema.MediaSection,
    "`request_limits`": schema.RequestLimitsSection,
    "`adapters`": schema.AdapterSection,
    "`tenants`": schema.TenantSection,
    "`caps`": schema.CapsSection,
    "`budget`": prices.BudgetSection,
    "A tenant's `prices`": prices.OwnPricesSection,
    "Keys": fields.KeySection,
    "`pools`": schema.PoolSection,
    "`replicas`": fields.ReplicasSection,
    "`residency`": schema.ResidencySection,
    "`mig`": schema.MigSection,
    "`slo`": schema.SloSection,
    "`gateway`": settings.GatewaySection,
    "`scheduler`": settings.SchedulerSection,
    "`metrics`": settings.MetricsSection,
    "`tracing`": settings.TracingSection,
    "`batches`": settings.BatchesSection,
    "`guards`": settings.GuardSection,
    "`trusted_proxies`": settings.TrustedProxiesSection,
    "`state`": settings.StateSection,
    "`usage`": settings.UsageSection,
    "`prices`": prices.PricesSection,
    "A model's price": prices.PriceSection,
}


def rows(heading: str) -> dict[str, str]:
    """Key -> default of the first table below a heading."""
    below = re.split(rf"^##+ {re.escape(heading)}$", TEXT, flags=re.M)[1]
    table = below[below.index("\n|") :].split("\n\n")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:]] for line in table.strip().splitlines()[2:]]
    return {row[0].strip("`"): row[1] for row in cells}


@pytest.mark.parametrize(("heading", "section"), SECTIONS.items())
def test_every_key_is_documented_and_no_other(heading: str, section: type[BaseModel]) -> None:
    assert list(rows(heading)) == list(section.model_fields)


@pytest.mark.parametrize(("heading", "section"), SECTIONS.items())
def test_documented_defaults_are_those_of_the_code(heading: str, section: type[BaseModel]) -> None:
    for key, told in rows(heading).items():
        default = section.model_fields[key].default
        if default is PydanticUndefined:
            assert told == "required"
        elif isinstance(default, str | int | float):
            assert told == f"`{str(default).lower() if isinstance(default, bool) else default}`"
        else:
            assert not told.startswith("`"), key


def test_what_needs_a_restart_is_documented_as_the_code_has_it() -> None:
    below = re.split(r"^## Changing the fleet while it runs$", TEXT, flags=re.M)[1]
    lines = below[below.index("\n| section |") :].split("\n\n")[0].strip().splitlines()[2:]
    told = [[set(re.findall(r"`([a-z_]+)`", cell)) for cell in line.split("|")[1:4]] for line in lines]
    assert [names for (names, _, _) in told] == [{name} for name in RESTART]
    for (section,), engines, service in told:
        assert (engines, service) == (set(ENGINES.get(section, ())), set(RESTART[section])), section


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.S))
def test_the_short_examples_have_no_wrong_key_or_value(tmp_path: Path, block: str) -> None:
    variables = {name: f"a-long-enough-value-of-{name}" for name in ("ACME_API_KEY", "OPERATOR_KEY")}
    variables["STATE_DATABASE_URL"] = "postgresql://db/tenantry"
    found = problems(tmp_path, block, variables)
    wrong = [str(p) for p in found if "is missing" not in p.message]
    assert not wrong


def test_the_production_example_loads_without_a_warning() -> None:
    loaded = read_fleet(EXAMPLE, env=ENV)
    assert loaded.warnings == ()
    fleet = loaded.fleet
    base = fleet.base_models["llama-3-8b"]
    assert (base.max_loras, base.max_lora_rank, base.dtype, base.gpu_memory_utilization) == (
        16,
        16,
        "bfloat16",
        0.9,
    )
    assert {t.name: t.band for t in fleet.tenants.values()} == {
        "helios": Band.HIGH,
        "orchid": Band.LOW,
        "bastion": Band.STANDARD,
    }
    assert fleet.tenants["bastion"].isolation is Isolation.DEDICATED
    assert [(c.device, c.tenants) for c in who_shares(fleet)] == [
        ("0", ("helios", "orchid")),
        ("1", ("bastion",)),
    ]
    assert fleet.adapters["helios-sales"].source == "/srv/adapters/helios-sales"
    assert set(loaded.key_variables.values()) == set(KEYS)


def test_the_demo_fleet_says_where_its_documentation_is() -> None:
    fleet, warnings = load_fleet_with_warnings(ROOT / "fleet.yaml")
    assert fleet.pools
    assert not warnings
    text = (ROOT / "fleet.yaml").read_text()
    assert all((ROOT / path).is_file() for path in re.findall(r"[\w/.-]+\.(?:md|yaml|json)\b", text))
