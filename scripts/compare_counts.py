"""Compare count likelihoods on overdispersed counts of a known model: held-out log p(x) in nats, beside the truth."""

import sys

from comparison.counts import compare_counts

from pyro_vae.runs import SentenceParser, run


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument("--num_rows", type=int, default=20_000, help="the rows to train on")
    parser.add_argument("--num_held_out", type=int, default=2_000, help="the rows to score")
    parser.add_argument("--epochs", type=int, default=60, help="how long to train")
    options = parser.parse_args(sys.argv[1:])
    counts = compare_counts(options.num_rows, options.num_held_out, options.epochs)
    for name, (mean, error) in counts._asdict().items():
        print(
            f"{name:<18} {mean:9.3f} ± {error:.3f}  ({abs(mean / counts.true[0] - 1):.2%} off the truth)"
        )
    return 0


if __name__ == "__main__":
    run(main)
