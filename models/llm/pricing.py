"""What does asking a language model cost? Energy by a documented formula, money by a price table; both are estimates.

Energy is the formula of Lannelongue, Grealey and Inouye, "Green Algorithms: Quantifying the Carbon Footprint of
Computation", Advanced Science 8 (2021) 2100707:

    kWh = hours * (cores * watts a core * usage + GiB * 0.3725 watts) * PUE / 1000

with usage 1, as the engine computes as long as it generates. It measures nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_TABLE = Path(__file__).parent / "prices.json"
#: Watts a GiB of memory (the paper's figure).
_MEMORY_WATTS = 0.3725


class PriceTable(BaseModel):
    """What a machine draws and costs; ``prices.json`` beside this file holds the defaults and says where they are from.

    Attributes:
        name: which table it is; stored with every cost.
        device_watts: of one core, or of one GPU, at full use.
        devices: cores or GPUs that the engine uses.
        pue: power usage effectiveness of the site; 1 where nothing is cooled beside the machine.
        per_kwh, per_device_hour: prices, in ``currency``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    currency: str = Field(min_length=3, max_length=3)
    device_watts: float = Field(ge=0)
    devices: int = Field(ge=1)
    pue: float = Field(ge=1)
    per_kwh: float = Field(ge=0)
    per_device_hour: float = Field(ge=0)


class Priced(BaseModel):
    """Energy in watt hours and money in the table's currency."""

    model_config = ConfigDict(frozen=True)

    watt_hours: float
    money: float
    currency: str
    table: str


def price(seconds: float, memory_mib: float, table: PriceTable) -> Priced:
    """What ``seconds`` of an engine with that much resident memory are put at."""
    hours = seconds / 3600
    watt_hours = hours * (table.devices * table.device_watts + memory_mib / 1024 * _MEMORY_WATTS) * table.pue
    money = watt_hours / 1000 * table.per_kwh + hours * table.devices * table.per_device_hour
    return Priced(watt_hours=watt_hours, money=money, currency=table.currency, table=table.name)


def default_prices() -> PriceTable:
    return PriceTable.model_validate(json.loads(_TABLE.read_text(encoding="utf-8")))
