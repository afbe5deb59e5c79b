"""What comes next after a history? A causal transformer over the items that a user met and the time between them.

Trained to name each user's next item, over the whole catalogue, from those before it and the time that passed; grown
along time, so that what stands at an instant was learned from interactions before it alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional

from models.errors import TrainingDivergedError
from models.interactions import DAY_US, Float32s, Histories, Int64s, Interactions, positions

#: Buckets of the time that passed: powers of two of seconds, up to 34 years.
GAPS = 31


class SequenceConfig(BaseModel):
    """The transformer's size and training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    length: int = Field(64, ge=2)
    """Newest items of a history that are read."""
    width: int = Field(64, ge=4)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    epochs: int = Field(8, ge=1)
    """Passes over all that came before the first instant."""
    later_epochs: int = Field(2, ge=1)
    """Passes, at each later instant, over what came since the one before."""
    learning_rate: float = Field(3e-3, gt=0)
    half_life_days: float = Field(30.0, gt=0)
    """Age at which a next item counts half in the loss."""
    batch: int = Field(64, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it is trained; a stored model is read onto the processor."""
    bf16: bool = False
    """Whether matrix products of the training are taken in bfloat16 (autocast); weights and sums stay float32."""


class Transformer(nn.Module):
    """Logits of every item after every position of a history."""

    def __init__(self, items: int, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        self.item = nn.Embedding(items + 1, config.width)  # the last row stands for an item not met
        self.place = nn.Embedding(config.length, config.width)
        self.gap = nn.Embedding(GAPS + 1, config.width)
        self.until = nn.Embedding(GAPS + 1, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last = nn.LayerNorm(config.width)
        self.drop = nn.Dropout(config.dropout)
        self.bias = nn.Parameter(torch.zeros(items))
        for table in (self.item, self.place, self.gap, self.until):
            nn.init.normal_(table.weight, std=0.02)

    def hidden(self, item: torch.Tensor, gap: torch.Tensor, until: torch.Tensor) -> torch.Tensor:
        """float32 [rows, places, width] from items and the buckets of the times that passed since the item before and
        until the answer, int64 [rows, places] each."""
        place = torch.arange(item.shape[1], device=item.device)
        x = self.drop(self.item(item) + self.place(place) + self.gap(gap))
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.last(x + self.until(until))
        return out

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [..., items]."""
        return hidden @ self.item.weight[:-1].T + self.bias


class Block(nn.Module):
    """Causal attention and a feed-forward layer, normalised before each."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.before_attention, self.before_feed = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.inputs = nn.Linear(config.width, 3 * config.width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)
        self.feed = nn.Sequential(
            nn.Linear(config.width, 4 * config.width), nn.GELU(), nn.Linear(4 * config.width, config.width)
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, places, width = x.shape
        q, k, v = (
            part.reshape(rows, places, self.heads, width // self.heads).transpose(1, 2)
            for part in self.inputs(self.before_attention(x)).chunk(3, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.output(mixed.transpose(1, 2).reshape(rows, places, width)))
        out: torch.Tensor = x + self.drop(self.feed(self.before_feed(x)))
        return out


class Growth(BaseModel):
    """How far a transformer has come: see `SequenceModel`. `losses`: mean loss of each pass, from the first on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: int | None
    stem_until: int | None
    losses: tuple[float, ...]


@dataclass
class SequenceModel:
    """A transformer over one catalogue (`items`: int64 [items], ascending) that grows along time.

    `until`: what it has learned from came before this instant, in microseconds; None before the first `grow`.
    `stem`: the weights after the first `grow`, and `stem_until` its instant. A later model that begins with the stem
    and grows again knows, at each instant after that one, nothing of what came later: so it may be warm-started and
    still be asked about the past.
    """

    config: SequenceConfig
    items: Int64s
    until: int | None = None
    stem: dict[str, torch.Tensor] = field(default_factory=dict)
    stem_until: int | None = None
    losses: list[float] = field(default_factory=list)
    net: Transformer = field(init=False)

    def __post_init__(self) -> None:
        self.net = Transformer(len(self.items), self.config)

    def adopt(self, previous: SequenceModel, first: int) -> bool:
        """Begin with the stem of an earlier model; False, changing nothing, where its size or training differs, or
        where it has seen what came at or after ``first``, the first instant that will be asked about."""
        if previous.config != self.config or previous.stem_until is None or previous.stem_until > first:
            return False
        fresh = self.net.state_dict()
        place = positions(previous.items, self.items)
        kept = torch.from_numpy(place >= 0)
        weights = dict(previous.stem)
        for name, rows in (("item.weight", slice(0, -1)), ("bias", slice(None))):
            wider = fresh[name].clone()
            wider[rows][kept] = previous.stem[name][rows][torch.from_numpy(place)[kept]]
            if name == "item.weight":
                wider[-1] = previous.stem[name][-1]
            weights[name] = wider
        self.net.load_state_dict(weights)
        self.net.eval()
        self.until = previous.stem_until
        return True

    def grow(self, log: Interactions, at: int) -> None:
        """Learn from the interactions before ``at`` (microseconds) that came since the last call.

        Raises TrainingDivergedError.
        """
        known = log.before(at)
        rows = _Windows.of(known, self.items, self.config.length, self.until)
        epochs = self.config.epochs if self.until is None else self.config.later_epochs
        if len(rows.item):
            met = torch.zeros(len(self.items), dtype=torch.bool)
            met[torch.from_numpy(np.unique(positions(self.items, known.item_ids)))] = True
            self._train(rows, met, at, epochs)
        self.net.eval()
        self.until = at
        if self.stem_until is None:
            self.stem = {name: value.detach().cpu().clone() for name, value in self.net.state_dict().items()}
            self.stem_until = at

    def _train(self, rows: _Windows, met: torch.Tensor, at: int, epochs: int) -> None:
        device = self.config.device
        if device == "cuda":  # else cuBLAS has no deterministic product
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self.net.to(device)
        item, gap, until, target, time = (
            torch.from_numpy(part).to(device) for part in (rows.item, rows.gap, rows.until, rows.target, rows.time)
        )
        weight = torch.where(target >= 0, 0.5 ** ((at - time) / DAY_US / self.config.half_life_days), 0.0).float()
        not_yet = ~met.to(device)  # an item that nobody has met is no answer, and must not be learned to be none
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=self.config.learning_rate, weight_decay=0.01)
        steps = epochs * -(-len(item) // self.config.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.config.learning_rate, total_steps=steps)
        self.net.train()
        for epoch in range(epochs):
            total = torch.zeros((), device=device)
            order = torch.randperm(len(item)).to(device)
            for chosen in torch.split(order, self.config.batch):
                optimiser.zero_grad()
                asked = weight[chosen] > 0
                share = weight[chosen][asked]
                with torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=self.config.bf16):
                    hidden = self.net.hidden(item[chosen], gap[chosen], until[chosen])[asked]
                    logits = self.net.logits(hidden)
                logits = logits.float().masked_fill(not_yet, -1e9)
                each = functional.cross_entropy(logits, target[chosen][asked], reduction="none")
                loss = (each * share).sum() / share.sum().clamp_min(1e-6)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total += (each * share).sum().detach()
            self.losses.append(float(total / weight.sum().clamp_min(1e-6)))
            if not np.isfinite(self.losses[-1]):
                raise TrainingDivergedError.at_epoch(epoch + 1, self.config.learning_rate)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that `of` needs beside `growth`."""
        grown = {f"net.{name}": value.cpu() for name, value in self.net.state_dict().items()}
        return {
            "items": torch.from_numpy(self.items),
            **grown,
            **{f"stem.{n}": value for n, value in self.stem.items()},
        }

    def growth(self) -> Growth:
        """What `of` needs beside the tensors."""
        return Growth(until=self.until, stem_until=self.stem_until, losses=tuple(self.losses))

    @classmethod
    def of(cls, config: SequenceConfig, tensors: Mapping[str, torch.Tensor], growth: Growth) -> Self:
        """What `tensors` and `growth` gave, on the processor. Raises KeyError or RuntimeError where parts are missing
        or do not fit."""
        items = np.asarray(tensors["items"].numpy(), dtype=np.int64)
        stem = {name.removeprefix("stem."): value for name, value in tensors.items() if name.startswith("stem.")}
        made = cls(config, items, growth.until, stem, growth.stem_until, list(growth.losses))
        made.net.load_state_dict({n.removeprefix("net."): v for n, v in tensors.items() if n.startswith("net.")})
        made.net.eval()
        return made

    def scores(self, histories: Histories, items: Int64s) -> Float32s:
        """How likely each item is next, as the log of its share over a uniform one, -10 to 10; 0 for an item it does
        not know and for who has no history: float32 [users, items]."""
        out = np.zeros((len(histories), len(items)), dtype=np.float32)
        have = np.flatnonzero(histories.sizes() > 0)
        if not len(have):
            return out
        item, gap, until, last = _newest(histories, self.items, self.config.length)
        device = self.net.bias.device
        column = positions(self.items, items)
        with torch.inference_mode():
            hidden = self.net.hidden(*(torch.from_numpy(part[have]).to(device) for part in (item, gap, until)))
            hidden = hidden[torch.arange(len(have)), torch.from_numpy(last[have])]
            logits = self.net.logits(hidden).float().cpu()
            chosen = logits[:, torch.from_numpy(column[column >= 0])]
            share = torch.log_softmax(chosen, dim=1) + np.log(chosen.shape[1])
        block = np.zeros((len(have), len(items)), dtype=np.float32)
        block[:, column >= 0] = share.clamp(-10, 10).numpy()
        out[have] = block
        return out


@dataclass(frozen=True)
class _Windows:
    """Histories cut into windows. int64 [windows, length] each; `target` is -1 where there is nothing to learn."""

    item: Int64s
    gap: Int64s
    until: Int64s
    target: Int64s
    time: Int64s

    @classmethod
    def of(cls, log: Interactions, items: Int64s, length: int, since: int | None) -> _Windows:
        """Windows of ``length`` steps, of each user's events from the newest back; targets from ``since`` on."""
        order = np.lexsort((np.arange(len(log)), log.user_ids))
        users, times = log.user_ids[order], log.rated_at[order]
        column = positions(items, log.item_ids[order])
        starts = np.flatnonzero(np.append(True, users[1:] != users[:-1])) if len(users) else np.zeros(0, np.int64)
        ends = np.append(starts[1:], len(users))
        parts: list[tuple[Int64s, ...]] = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            stop = end - 1  # steps: event -> the event after it
            while stop > start:
                begin = max(start, stop - length)
                at = np.arange(begin, stop)
                target = column[at + 1].copy()
                if since is not None:
                    target[times[at + 1] < since] = -1
                if (target >= 0).any():
                    before = np.where(at > start, times[at] - times[np.maximum(at - 1, 0)], 0)
                    parts.append(
                        tuple(
                            np.pad(value, (0, length - len(at)), constant_values=fill).astype(np.int64)
                            for value, fill in (
                                (np.where(column[at] >= 0, column[at], len(items)), len(items)),
                                (bucket(before), 0),
                                (bucket(times[at + 1] - times[at]), 0),
                                (target, -1),
                                (times[at + 1], 0),
                            )
                        )
                    )
                stop = begin
                if since is not None and times[stop] < since:
                    break
        if not parts:
            empty = np.zeros((0, length), dtype=np.int64)
            return cls(empty, empty, empty, empty, empty)
        return cls(*(np.stack(values) for values in zip(*parts, strict=True)))


def _newest(histories: Histories, items: Int64s, length: int) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """The newest items of each history, the times between them and until the question, and the last one's place."""
    ranks = histories.ranks()
    sizes = np.minimum(histories.sizes(), length)
    kept = ranks < length
    rows = histories.rows[kept]
    place = sizes[rows] - 1 - ranks[kept]
    item = np.full((len(histories), length), len(items), dtype=np.int64)
    column = positions(items, histories.item_ids[kept])
    item[rows, place] = np.where(column >= 0, column, len(items))
    before = np.append(0, np.diff(histories.rated_at))
    before[np.append(True, histories.rows[1:] != histories.rows[:-1])[: len(before)]] = 0
    gap = np.zeros_like(item)
    gap[rows, place] = bucket(before[kept])
    until = np.zeros_like(item)
    until[rows, place] = bucket(histories.asked[rows] - histories.rated_at[kept])
    return item, gap, until, np.maximum(sizes - 1, 0)


def bucket(passed: Int64s) -> Int64s:
    """Microseconds as a power of two of seconds, 0 to GAPS."""
    seconds = np.maximum(passed, 0) / 1e6
    return np.asarray(np.minimum(np.floor(np.log2(1 + seconds)), GAPS), dtype=np.int64)
