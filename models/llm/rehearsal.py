"""Does the language model answer? It is asked about one movie, once, when the environment is set up.

    python -m models.llm.rehearsal FOLDER

Makes the weights in FOLDER if they are not there. What vLLM finds out about the model at its first start is kept
in the environment, so that the first night need not.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lakehouse.errors import MillraceError
from models.llm.engine import Engine
from models.llm.movie_card import MOVIE_CARD, MovieCardInput
from models.llm.weights import ensure_weights

MOVIE = MovieCardInput(item_id=1, title="Toy Story", year=1995, genres=["Animation", "Children's", "Comedy"])


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m models.llm.rehearsal FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    if not folder.exists():
        print(f"converting the weights into {folder}", flush=True)
    try:
        model = ensure_weights(folder)
        with Engine(model) as engine:
            (answer,) = engine.generate(MOVIE_CARD, [MOVIE_CARD.question(MOVIE)])
    except MillraceError as error:
        print(error.explain(), file=sys.stderr)
        return 1
    print(f"{model.name} on {MOVIE.title}: {answer.text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
