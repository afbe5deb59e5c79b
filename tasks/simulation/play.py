"""How is the past played again? Day by day under a virtual clock: serve, look, decide, train, judge, promote.

Nothing sleeps and nothing asks the wall what time it is. By day each policy's model is asked about the users who came,
as they were known in the morning, and what they then met is the feedback. At night the feed comes in, drift is
measured, and each policy's rule says whether to train; a challenger is judged by the nightly job's own gates on the
newest days, and serves from the next morning on if they let it pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from features.store import end_of
from lakehouse.movielens import Archive
from serving.clock import VirtualClock
from tasks.decide import FeatureShift, compare_windows
from tasks.errors import SimulationError
from tasks.promote import quality_gates
from tasks.simulation.feed import Feed
from tasks.simulation.incidents import MIN_DAYS, Planted, plant
from tasks.simulation.model import DriftDay, Incident, IncidentKind, Script, Served, Simulation, Training
from tasks.simulation.policies import POLICIES, Policy
from tasks.simulation.release import damaged, release
from tasks.simulation.summary import summarise
from tasks.simulation.trainings import Key, Trainings
from tasks.simulation.world import World, described, start_of
from tasks.train import contest

if TYPE_CHECKING:
    from models.recommender import RecommenderConfig
    from tasks.promote import Gate

#: Days of ratings before the first cutoff.
MIN_HISTORY_DAYS = 7
#: What the ranking tests read of a rating.
_ASKED = ["user_id", "item_id", "rating", "rated_at"]


@dataclass
class Seat:
    """One policy in the play: which model serves for it, and when it last answered drift."""

    policy: Policy
    serving: Key
    drift_answered: date | None = None


def require(script: Script, archive: Archive) -> None:
    """Refuse days that can't be played.

    Raises:
        NoDataForDayError: the archive does not have one of them.
        SimulationError: they are in the wrong order, too few for incidents, or begin before there is enough to learn.
    """
    if script.first > script.last:
        raise SimulationError.order(script.first, script.last)
    for day in (script.first, script.last):
        archive.require(day)
    if script.incidents and len(script.days()) < MIN_DAYS:
        raise SimulationError.short(len(script.days()), MIN_DAYS)
    earliest = archive.first_day + timedelta(days=MIN_HISTORY_DAYS + script.holdout_days)
    if script.first < earliest:
        raise SimulationError.early(script.first, earliest)


def simulate(
    script: Script,
    archive: Archive,
    config: RecommenderConfig,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Simulation:
    """Play the days.

    Args:
        script: which days, which seed, with incidents or without.
        archive: users, movies and ratings.
        config: of the trainings; its features are those of users, movies and their statistics.
        folder: for the lake, the online store and the views; empty.
        progress: called after each day with its number and the number of days.

    Raises:
        NoDataForDayError, SimulationError: see ``require``.
    """
    require(script, archive)
    return _Play(script, plant(archive, script), archive, config, folder).whole(progress)


class _Play:
    """The state of a play between two days."""

    def __init__(
        self, script: Script, planted: Planted, archive: Archive, config: RecommenderConfig, folder: Path
    ) -> None:
        self._script, self._planted, self._folder = script, planted, folder
        self._world = World(planted.archive, folder / "views", planted.late)
        self._described, self._unshifted = described(planted.archive), described(archive)
        self._trainings = Trainings(self._world, config)
        self._feed = Feed(folder / "lake", planted.archive)
        self._clock = VirtualClock(start_of(script.first))
        self._incidents: dict[IncidentKind, Incident] = {one.kind: one for one in planted.incidents}
        self._served: list[Served] = []
        self._made: list[Training] = []
        self._drift: list[DriftDay] = []
        first = Key(self._cutoff())
        self._seats = [Seat(policy, first) for policy in POLICIES]
        took = self._trainings.of(first).cpu_seconds
        day, reason = script.first - timedelta(days=1), "Every policy begins with this model."
        for policy in POLICIES:
            self._note(policy, day, "start", reason, [], took)

    def whole(self, progress: Callable[[int, int], None]) -> Simulation:
        days = self._script.days()
        for number, day in enumerate(days, 1):
            self._serve(day)
            self._clock.move_to(end_of(day))
            self._take_in(day)
            drift = self._look(day)
            for seat in self._seats:
                self._decide(seat, day, drift)
            self._trainings.keep({seat.serving for seat in self._seats})
            progress(number, len(days))
        return Simulation(
            script=self._script,
            policies=summarise(self._served, self._made, self._script.seed),
            incidents=list(self._incidents.values()),
            served=self._served,
            trainings=self._made,
            drift=self._drift,
        )

    def _serve(self, day: date) -> None:
        """Ask each model that serves about the users who came, and see what they met."""
        from models.errors import EvaluationError
        from models.evaluation import NewestInteractions, ndcg_and_recall

        morning = self._clock.now()
        try:
            test = NewestInteractions.split(self._world.happened(end_of(day)).select(_ASKED), morning, end_of(day))
        except EvaluationError:  # nobody came who met something new
            return
        query = test.query(self._world.users(morning, morning), self._world.items(morning, morning))
        items = query.item_ids()
        relevant, seen = test.relevant(items), test.histories.seen(items)
        found = {}
        for key in {seat.serving for seat in self._seats}:
            scores = self._trainings.of(key).model.scores(query)
            found[key] = ndcg_and_recall(scores, relevant, seen, target_counts=test.target_counts())
        for seat in self._seats:
            ndcg, recall = found[seat.serving]
            self._served.append(
                Served(
                    policy=seat.policy.name,
                    day=day,
                    model_until=seat.serving.cutoff.date(),
                    ndcg=ndcg.tolist(),
                    hits=int((recall > 0).sum()),
                )
            )

    def _take_in(self, day: date) -> None:
        """What happens to the lake and the service in the course of the incidents."""
        planted = self._planted
        corrupt = planted.corrupt
        if corrupt is not None and day - corrupt.day in (timedelta(0), timedelta(days=1)):
            act = self._feed.let_in if day == corrupt.day else self._feed.send_again
            self._incidents["corrupt feed"] = act(corrupt, self._incidents["corrupt feed"])
        if planted.released_on == day:
            self._feed.bring_to(day)
            serving = next(seat.serving for seat in self._seats if seat.policy.name == "nightly")
            model = self._trainings.of(serving).model
            released = release(self._feed.lake, self._folder, day, model, damaged(model), self._clock)
            self._incidents["bad release"] = released.told(self._incidents["bad release"], day)

    def _look(self, day: date) -> list[FeatureShift]:
        """Measure drift as the night does, and beside it what it would be without the planted shift."""
        now = self._clock.now()
        shifts = compare_windows(self._described, now)
        same = self._planted.shifted_on is None or day < self._planted.shifted_on
        unshifted = shifts if same else compare_windows(self._unshifted, now)
        today = DriftDay(
            day=day,
            psi=max((one.psi for one in shifts), default=0.0),
            unshifted_psi=max((one.psi for one in unshifted), default=0.0),
            drifted=[one.feature for one in shifts if one.drifted],
            unshifted=[one.feature for one in unshifted if one.drifted],
        )
        self._drift.append(today)
        planted = self._incidents.get("preference shift")
        by_it = [one for one in shifts if one.feature in {*today.drifted} - {*today.unshifted}]
        if planted is not None and planted.noticed_on is None and by_it:
            said = [f"{one.feature}: PSI {one.psi:.2f}, bound {one.threshold:g}" for one in by_it]
            update = {"noticed_on": day, "noticed_by": "the drift statistic", "said": said}
            self._incidents["preference shift"] = planted.model_copy(update=update)
        return shifts

    def _decide(self, seat: Seat, day: date, drift: Sequence[FeatureShift]) -> None:
        """Train if the policy's rule says so, and promote what passes the gates."""
        cutoff = self._cutoff()
        until = self._trainings.of(seat.serving).model.summary.until
        decision = seat.policy.decide(until, seat.drift_answered, drift, day, cutoff)
        if decision.cause not in ("drift", "age"):
            return
        if decision.cause == "drift":
            seat.drift_answered = day
        challenger = Key(cutoff, spoiled=day == self._planted.spoiled_on)
        refused = [f"{gate.gate}: {gate.reason}" for gate in self._judge(challenger, seat.serving) if not gate.passed]
        took = self._trainings.of(challenger).cpu_seconds
        self._note(seat.policy, day, decision.cause, decision.reason, refused, took)
        if challenger.spoiled:
            self._spoiled(seat, day, refused)
        if not refused:
            seat.serving = challenger

    def _judge(self, challenger: Key, champion: Key) -> list[Gate]:
        """The gates that a comparison decides, on the newest days as the lake has them."""
        now = self._clock.now()
        comparison = contest(
            self._world.known(now).select(_ASKED),
            self._world.users(challenger.cutoff, now),
            self._world.items(challenger.cutoff, now),
            (challenger.cutoff, now),
            {name: self._trainings.of(key).model for name, key in (("challenger", challenger), ("champion", champion))},
            self._world.titles,
        )
        return quality_gates(comparison)

    def _spoiled(self, seat: Seat, day: date, refused: list[str]) -> None:
        """Write down what the gates said of the bad challenger; one that let it pass has not noticed it."""
        incident = self._incidents["bad challenger"]
        if refused:
            update: dict[str, object] = {
                "noticed_on": day,
                "noticed_by": "the gates",
                "said": [*incident.said, *(f"{seat.policy.name}: {reason}" for reason in refused)],
            }
        else:
            update = {"after": f"{incident.after} Policy {seat.policy.name} promoted it.".strip()}
        self._incidents["bad challenger"] = incident.model_copy(update=update)

    def _note(
        self,
        policy: Policy,
        day: date,
        cause: Literal["start", "drift", "age"],
        reason: str,
        refused: list[str],
        took: float,
    ) -> None:
        self._made.append(
            Training(
                policy=policy.name,
                day=day,
                cause=cause,
                reason=reason,
                promoted=not refused,
                refused_by=refused,
                cpu_seconds=took,
            )
        )

    def _cutoff(self) -> datetime:
        """Up to here a challenger of this instant may learn."""
        return self._clock.now() - timedelta(days=self._script.holdout_days)
