"""How are signals and features weighed? A gated sum of signals, a small network and two towers, and their training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from models.errors import TrainingDivergedError
from models.features import transfer


class Ranker(nn.Module):
    """score = (linear + gate(user)) . signals + known(user) bend(signals) + user_tower(user) . item_tower(item).

    The gate lets the weight of each signal depend on the user, such as on how much is known of them. `bend` is one
    hidden layer over the signals alone, for users with a history: a new user's signals are all popularity, which the
    sum ranks better. The towers turn features into vectors of `factors` numbers whose product says what kind of user
    likes what kind of item, also of those never met. Names say what each input means, the last of `user` being whether
    the user is new; warm starts match weights by them.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self, signals: Sequence[str], user: Sequence[str], item: Sequence[str], *, hidden: int, factors: int
    ) -> None:
        super().__init__()
        self.width = (hidden, factors)
        self.inputs = {"signal": list(signals), "user": list(user), "item": list(item)}
        self.register_buffer("mean", torch.zeros(len(signals)))
        self.register_buffer("spread", torch.ones(len(signals)))
        self.linear = nn.Linear(len(signals), 1, bias=False)
        self.gate = nn.Linear(len(user), len(signals), bias=False)
        bent = nn.Linear(hidden, 1, bias=False)
        self.bend = nn.Sequential(nn.Linear(len(signals), hidden), nn.ReLU(), bent)
        self.user_tower = nn.Linear(len(user), factors)
        self.item_tower = nn.Linear(len(item), factors)
        # Untrained, the ranker adds up the signals: a fair ranking, and a good place to start from.
        nn.init.constant_(self.linear.weight, 0.3)
        for last in (self.gate.weight, bent.weight, self.item_tower.weight):
            nn.init.zeros_(last)

    def forward(self, signals: torch.Tensor, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """float32 [users, items] from signals [users, items, signals], user [users, u] and item [items, i]."""
        scores: torch.Tensor = self._of_signals(signals, user) + self.user_tower(user) @ self.item_tower(item).T
        return scores

    def pairs(self, signals: torch.Tensor, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """float32 [pairs], a user and an item each; signals [pairs, signals], user [pairs, u], item [pairs, i]."""
        alike = (self.user_tower(user) * self.item_tower(item)).sum(-1)
        scores: torch.Tensor = self._of_signals(signals[:, None], user)[:, 0] + alike
        return scores

    def _of_signals(self, signals: torch.Tensor, user: torch.Tensor) -> torch.Tensor:
        scaled = (signals - self.mean) / self.spread
        mixed = torch.bmm(scaled, (self.linear.weight + self.gate(user)).unsqueeze(-1)).squeeze(-1)
        known = 1.0 - user[:, -1:]
        scores: torch.Tensor = mixed + known * self.bend(scaled).squeeze(-1)
        return scores

    def standardise(self, batches: Sequence[Batch]) -> None:
        """Learn the signals' mean and spread from the batches, every user and item counting once."""
        rows = torch.cat([batch.signals.flatten(0, 1) for batch in batches])
        self.mean.copy_(rows.mean(0))
        self.spread.copy_(rows.std(0).clamp_min(1e-3))

    def adopt(self, previous: Ranker) -> bool:
        """Start from the weights of an earlier ranker; False, changing nothing, where its shape or signals differ."""
        if previous.inputs["signal"] != self.inputs["signal"] or previous.width != self.width:
            return False
        weights = dict(previous.state_dict())
        for name, part in (("gate.weight", "user"), ("user_tower.weight", "user"), ("item_tower.weight", "item")):
            fresh = self.state_dict()[name]
            weights[name] = transfer(self.inputs[part], previous.inputs[part], weights[name], fresh)
        for name in ("mean", "spread"):
            weights[name] = self.state_dict()[name]
        self.load_state_dict(weights)
        return True


@dataclass(frozen=True)
class Batch:
    """Every query of one instant. `signals`: float32 [users, items, signals]; `user`, `item`: encoded features,
    float32 [users, u] and [items, i]; `target`, `seen`: bool [users, items]; every user has a target."""

    signals: torch.Tensor
    user: torch.Tensor
    item: torch.Tensor
    target: torch.Tensor
    seen: torch.Tensor


def train(
    ranker: Ranker,
    batches: Sequence[Batch],
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    progress: Callable[[int, int, float], None] | None,
) -> list[float]:
    """Fit the ranker by AdamW, a step a batch in drawn order; returns the mean loss of each epoch.

    The loss is cross-entropy over the whole catalogue (seen items left out), averaged over a user's targets and then
    over users, so that a user with many ratings pulls no harder than one with few. The learning rate falls to zero
    along a cosine. Random numbers come from torch's generator, which the caller seeds.
    """
    optimiser = torch.optim.AdamW(ranker.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    ranker.train()
    losses = []
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(batches)).tolist():
            batch = batches[index]
            optimiser.zero_grad()
            loss = _loss(ranker(batch.signals, batch.user, batch.item), batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.item()
        schedule.step()
        losses.append(total / len(batches))
        if not torch.isfinite(torch.tensor(losses[-1])):
            raise TrainingDivergedError.at_epoch(epoch + 1, learning_rate)
        if progress is not None:
            progress(epoch + 1, epochs, losses[-1])
    ranker.eval()
    return losses


@contextmanager
def deterministic(seed: int, threads: int) -> Iterator[None]:
    """Only deterministic algorithms, a fixed number of threads, and a generator seeded for the block alone.

    All are put back after it. The number of threads is fixed as sums over more threads differ in the last bit.
    """
    before, threads_before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(before)


def _loss(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    log_probability = torch.log_softmax(scores.masked_fill(batch.seen, -1e9), dim=1)
    per_user = (log_probability * batch.target).sum(1) / batch.target.sum(1)
    return -per_user.mean()
