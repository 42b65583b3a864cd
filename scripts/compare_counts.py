"""Compare count likelihoods on overdispersed counts of a known model.

The score is log p(x) of held-out rows, in nats. The score of the true model is also shown.
"""

import math
import sys

import door
from comparison.counts import compare_counts
from jsonargparse.typing import PositiveInt

from pyro_vae.runs import SentenceParser


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument("--num_rows", type=PositiveInt, default=20_000, help="the rows to train on")
    parser.add_argument("--num_held_out", type=PositiveInt, default=2_000, help="the rows to score")
    parser.add_argument("--epochs", type=PositiveInt, default=60, help="how long to train")
    options = parser.parse_args(sys.argv[1:])
    scores = compare_counts(options.num_rows, options.num_held_out, options.epochs)
    for name, score in scores._asdict().items():
        error = math.nan if score.row_error is None else score.row_error  # None for a single row
        distance = abs(score.mean / scores.true.mean - 1)
        print(f"{name:<18} {score.mean:9.3f} ± {error:.3f}  ({distance:.2%} off the truth)")
    return 0


if __name__ == "__main__":
    door.run(main)
