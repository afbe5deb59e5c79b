"""What can go wrong when a model is trained, stored or asked: typed errors, each with the way out."""

from __future__ import annotations

from collections.abc import Sequence

from lakehouse.errors import MillraceError, examples


class InteractionsError(MillraceError):
    """The interactions cannot train a recommender: too few rows, too few items, or a null or wrongly typed column."""

    code = "MR-INTERACTIONS"

    @classmethod
    def empty(cls, what: str) -> InteractionsError:
        return cls(f"There is no interaction {what}.", fix="Ingest more days of ratings, or choose a later day.")

    @classmethod
    def catalogue(cls, items: int) -> InteractionsError:
        return cls(
            f"The interactions name {items} item(s), and a ranking needs at least two.",
            fix="Ingest ratings of more items before training.",
        )

    @classmethod
    def nulls(cls, column: str, count: int) -> InteractionsError:
        return cls(
            f"Column {column!r} of the interactions has {count} null(s).", fix="Quarantine those rows before training."
        )


class FeatureColumnError(MillraceError):
    """A feature column that the config names is missing, or holds another type than the config says."""

    code = "MR-FEATURE-COLUMN"

    @classmethod
    def missing(cls, where: str, names: Sequence[str], present: Sequence[str]) -> FeatureColumnError:
        return cls(
            f"The {where} table lacks {len(names)} column(s) that the model reads: {examples(names)}.",
            fix=f"Add them, or take them out of the feature specification (the table has {', '.join(present)}).",
        )

    @classmethod
    def wrong_type(cls, where: str, name: str, expected: str, got: str) -> FeatureColumnError:
        return cls(
            f"Column {name!r} of the {where} table is {got}, where the model reads {expected}.",
            fix="Cast the column, or declare it by its own kind in the feature specification.",
        )


class FeatureValueError(MillraceError):
    """A numeric feature holds NaN or an infinity, which would spread through every weight."""

    code = "MR-FEATURE-VALUE"

    @classmethod
    def not_finite(cls, where: str, name: str, count: int, ids: Sequence[object]) -> FeatureValueError:
        return cls(
            f"Column {name!r} of the {where} table holds {count} NaN or infinite value(s), at {examples(ids)}.",
            fix="Write null where a value is not known; null is handled, NaN is a fault in the feature.",
        )


class TrainingDivergedError(MillraceError):
    """The loss stopped being a number, so there is no model to keep."""

    code = "MR-TRAINING-DIVERGED"

    @classmethod
    def at_epoch(cls, epoch: int, learning_rate: float) -> TrainingDivergedError:
        return cls(
            f"The loss was no longer finite in epoch {epoch} at learning rate {learning_rate}.",
            fix="Lower the learning rate, and look at the feature columns for extreme values.",
        )


class ArtifactError(MillraceError):
    """A stored model is missing, cut off, edited, or written in another format."""

    code = "MR-ARTIFACT"

    @classmethod
    def missing(cls, file: str) -> ArtifactError:
        return cls(f"There is no model file {file!r}.", fix="Train a model, or give the folder that save() wrote.")

    @classmethod
    def damaged(cls, file: str, why: str) -> ArtifactError:
        return cls(f"Model file {file!r} can't be read: {why}.", fix="Take the model from the registry again.")

    @classmethod
    def digest(cls, folder: str, expected: str, got: str) -> ArtifactError:
        return cls(
            f"The model in {folder!r} has digest {got[:12]}, not {expected[:12]}: it was cut off or edited.",
            fix="Take the model from the registry again; a stored model is never changed in place.",
        )


class RegistryError(MillraceError):
    """The model registry does not answer, or has no model of that version or alias."""

    code = "MR-REGISTRY"

    @classmethod
    def reference(cls, reference: str) -> RegistryError:
        return cls(
            f"{reference[:40]!r} names no model version.",
            fix="Give a version's number, such as 3, or an alias, such as champion.",
        )

    @classmethod
    def unknown(cls, reference: str) -> RegistryError:
        return cls(
            f"The model registry has no version {reference!r} of the recommender.",
            fix="Run the nightly job, which registers one, or name a version that `millrace show last` lists.",
        )

    @classmethod
    def without_digest(cls, version: int) -> RegistryError:
        return cls(
            f"Version {version} in the model registry says no digest, so its files can't be checked.",
            fix="Register the model by the nightly job, which writes it down.",
        )


class RegistryAwayError(RegistryError):
    """The model registry does not answer."""

    @classmethod
    def because(cls, why: str) -> RegistryAwayError:
        return cls(
            f"The model registry does not answer: {why}.",
            fix="See that MLFLOW_TRACKING_URI names a registry that runs; what is loaded goes on serving.",
        )


class EvaluationError(MillraceError):
    """The evaluation asked for cannot be made: no target, or scores of another shape or not finite."""

    code = "MR-EVALUATION"
