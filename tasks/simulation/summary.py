"""How did each policy do over all days? Means with intervals, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.simulation.model import Mean, Served, Summary, Training
from tasks.simulation.policies import POLICIES


def summarise(served: Sequence[Served], trainings: Sequence[Training], seed: int) -> list[Summary]:
    """A row a policy; nothing where nobody was ever served."""
    by_policy = {policy.name: [one for one in served if one.policy == policy.name] for policy in POLICIES}
    values = {name: [value for day in days for value in day.ndcg] for name, days in by_policy.items()}
    never = values["never"]
    if not never:
        return []
    rows = []
    for name, days in by_policy.items():
        made = [one for one in trainings if one.policy == name]
        rows.append(
            Summary(
                policy=name,
                ndcg=_mean(values[name], seed),
                # Each policy was asked about the same users on the same days, in the same order.
                gain=_mean([own - other for own, other in zip(values[name], never, strict=True)], seed),
                hit_share=sum(day.hits for day in days) / len(never),
                users=len(never),
                trainings=len(made),
                promoted=sum(one.promoted for one in made),
                refused=sum(not one.promoted for one in made),
                cpu_seconds=sum(one.cpu_seconds for one in made),
                mean_age_days=sum((day.day - day.model_until).days for day in days) / len(days),
            )
        )
    return rows


def trailing(served: Sequence[Served], days: int) -> list[tuple[Served, float | None]]:
    """Each of one policy's days with the mean NDCG@10 of the users of it and of the days before it, ``days`` in all."""
    found: list[tuple[Served, float | None]] = []
    for one in served:
        window = [v for other in served if 0 <= (one.day - other.day).days < days for v in other.ndcg]
        found.append((one, sum(window) / len(window) if window else None))
    return found


def _mean(values: Sequence[float], seed: int) -> Mean:
    from models.evaluation import interval

    found = interval(values, metric="", seed=seed)
    return Mean(value=found.value, low=found.low, high=found.high)
