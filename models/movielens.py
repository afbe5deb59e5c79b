"""Which features does the MovieLens recommender read? The columns of the training set, by kind."""

from __future__ import annotations

from models.features import FeatureSpec, NumericFeature
from models.recommender import RecommenderConfig

USER_FEATURES = FeatureSpec(
    numeric=(
        NumericFeature(column="users__age"),
        NumericFeature(column="user_stats__ratings_count", scale="log"),
        NumericFeature(column="user_stats__mean_rating"),
    ),
    categorical=("users__gender", "users__occupation"),
)
ITEM_FEATURES = FeatureSpec(
    numeric=(
        NumericFeature(column="movies__year"),
        NumericFeature(column="item_stats__ratings_count", scale="log"),
        NumericFeature(column="item_stats__mean_rating"),
    ),
    categorical=("movie_cards__mood", "movie_cards__audience"),
    lists=("movies__genres",),
)


def movielens_config(seed: int) -> RecommenderConfig:
    """The nightly job's configuration: the tuned defaults on all of the features."""
    return RecommenderConfig(user_features=USER_FEATURES, item_features=ITEM_FEATURES, seed=seed)
