"""Complete digits whose lower half is missing: three ways to draw z, from two guides.

The VAE is trained on whole digits. Its model can leave out pixels, but its encoder reads a missing
pixel as background, and is sure of a wrong z. The other guide is a new encoder for the same model,
trained on upper halves.

Each way gives S draws z_s for each row, from its upper half alone. So (1/S) Σ_s p(x_hidden | z_s)
is a distribution of the hidden pixels. Its logarithm at the true pixels is the score, in nats per
row: higher is better. The gain is the score minus that of the guide's own draws.

- guide: the draws of the guide.
- importance: draws that are chosen by weight from 20 times as many draws of the guide. Where k̂ is
  above 0.7 they are still far from p(z | x_visible). At 400 draws the bad guide gains 4 of the 76
  nats that there are. The good guide gains nothing, since the choice repeats some draws.
- HMC: chains that start at the guide's draws and take as many steps to p(z | x_visible). They gain
  76 nats over the bad guide and 7 over the good one. Ten draws score no more than ten of the good
  guide.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt
from torch import Tensor

import pyro_vae as pv
from pyro_vae import figures
from pyro_vae.runs import Seed, SentenceParser, output_folder, run

LATENT_DIM = 20
# Widths of the hidden layers of the decoder and of each encoder.
HIDDEN = [400]
NUM_CHAINS = 4
# So many give each chain the four draws that R̂ needs.
FEWEST_DRAWS = 4 * NUM_CHAINS
# Leapfrog steps of HMC for each draw.
NUM_STEPS = 10
# Importance resampling looks at as many places as HMC, which warms up for half of its time.
POOL = 2 * NUM_STEPS
# Importance weights with a higher k̂ are not to be trusted.
HIGHEST_KHAT = 0.7
# Draws of z that pass through the decoder at once, to bound memory.
CHUNK = 50
# The score is printed for this many draws, and for all.
FEW_DRAWS = 10

# The picture: its digits, the completions of each by one way, and the grey of hidden pixels.
NUM_SHOWN = 16
NUM_COMPLETIONS = 2
UNSEEN_LEVEL = 0.2


def new_encoder(x_shape: torch.Size, latent_dim: int) -> pv.Posterior:
    network = pv.MLP(x_shape, HIDDEN, (2, latent_dim))
    return pv.DiagNormalPosterior(network, x_shape, latent_dim)


def new_vae(x_shape: torch.Size) -> pv.VAE:
    prior = pv.StandardNormalPrior(LATENT_DIM)
    decoder = pv.BernoulliLikelihood(pv.MLP(LATENT_DIM, HIDDEN, x_shape), x_shape)
    return pv.VAE(prior, decoder, new_encoder(x_shape, LATENT_DIM))


def train(vae: pv.VAE, rows: pv.Rows, epochs: int) -> pv.VAE:
    """Train what is not frozen, and freeze it."""
    optimizer = partial(torch.optim.Adam, lr=2e-3)
    execution = pv.Execution(precision="bfloat16")
    pv.fit(vae, rows, pv.Training(epochs, optimizer=optimizer, execution=execution))
    return vae.eval().requires_grad_(False)


def vae_of_whole_digits(rows: pv.Rows, options: Namespace) -> pv.VAE:
    if options.run:
        vae = pv.load(options.run).requires_grad_(False)
        if vae.x_shape != rows.x_shape:
            raise ValueError(
                f"'run' must hold a VAE of rows of the shape {tuple(rows.x_shape)}, as those of "
                f"{options.source} have, got {tuple(vae.x_shape)}."
            )
        return vae
    return train(new_vae(rows.x_shape), rows, options.epochs)


def two_guides(rows: pv.Rows, options: Namespace) -> dict[str, pv.VAE]:
    """Return one model with two encoders, named after the digits that they are trained on."""
    vae = vae_of_whole_digits(rows, options)
    encoder = new_encoder(rows.x_shape, vae.latent_dim)
    of_halves = pv.VAE(vae.prior, vae.likelihood, encoder, missing="nan")
    upper_rows = pv.Rows(upper_half(rows.levels[:].float()), rows.transform, rows.max_level)
    return {
        "whole": pv.VAE(vae.prior, vae.likelihood, vae.posterior, missing="nan").eval(),
        "halves": train(of_halves, upper_rows, options.epochs),
    }


def upper_half(x: Tensor, below: float = torch.nan) -> Tensor:
    """Return x with another value in its lower half: NaN, which stands for what is missing."""
    is_lower = torch.arange(x.shape[-2]) >= x.shape[-2] // 2
    return x.masked_fill(is_lower.unsqueeze(-1), below)


def draw_from_guide(vae: pv.VAE, visible: Tensor, num_draws: int) -> Tensor:
    """Draw z from q(z | x_visible), `(S, B, D)`."""
    return vae.encode(visible).sample(torch.Size([num_draws]))


def draw_by_importance(vae: pv.VAE, visible: Tensor, num_draws: int) -> Tensor:
    """Resample z by weight from more draws of the guide."""
    draws = pv.importance_sample(vae.model, vae.guide, visible, num_samples=POOL * num_draws)
    share = (draws.khat > HIGHEST_KHAT).double().mean()
    median_ess = draws.ess.median()
    print(
        f"  k̂ above {HIGHEST_KHAT} in {share:.0%} of the rows; "
        f"median effective sample size {median_ess:.1f}"
    )
    return draws.resample(num_draws)["z"]


def draw_by_hmc(vae: pv.VAE, visible: Tensor, num_draws: int) -> Tensor:
    """Draw z by chains that start at the guide, in random order."""
    num_samples = -(-num_draws // NUM_CHAINS)
    chains = pv.hmc(
        vae.model,
        vae.guide,
        visible,
        num_samples=num_samples,
        num_warmup=num_samples,
        num_chains=NUM_CHAINS,
        num_steps=NUM_STEPS,
    )
    r_hat = chains.r_hat()["z"].amax(-1).median()
    acceptance = chains.acceptance.mean()
    print(f"  median over rows of the largest R̂ {r_hat:.2f}; acceptance {acceptance:.2f}")
    order = torch.randperm(NUM_CHAINS * num_samples)
    return chains.merged()["z"][order[:num_draws]]


WAYS = {"guide": draw_from_guide, "importance": draw_by_importance, "HMC": draw_by_hmc}


def score(vae: pv.VAE, hidden: Tensor, z: Tensor) -> Tensor:
    """Return log (1/S) Σ_s p(x_hidden | z_s) of few draws and of all, in nats, `(2, B)`.

    The score of few draws is the mean over all groups of so many.

    Arguments:
        vae: the model.
        hidden: the true x with NaN for its visible pixels, `(B, C, H, W)`.
        z: the draws, `(S, B, D)`.
    """
    log_p = torch.cat([vae.log_likelihood(hidden, part) for part in z.split(CHUNK)])
    groups = log_p.split(FEW_DRAWS)
    few = torch.stack([pv.log_mean_exp(group) for group in groups if len(group) == len(groups[0])])
    return torch.stack([few.mean(0), pv.log_mean_exp(log_p)])


def mean_and_error(values: Tensor) -> str:
    """Write the mean over rows with its standard error, which a single row does not have."""
    estimate = pv.Estimate.over_rows(values)
    error = torch.nan if estimate.row_error is None else estimate.row_error
    return f"{estimate.mean:9.2f} ± {error:.2f}"


class Picture:
    """Rows of digits: the true ones, what is visible of them, and completions.

    Arguments:
        x: the true digits, `(B, C, H, W)`.
        visible: the same with NaN for their hidden pixels.
    """

    def __init__(self, x: Tensor, visible: Tensor) -> None:
        self.visible = visible[:NUM_SHOWN]
        self.images = [x[:NUM_SHOWN], upper_half(self.visible, UNSEEN_LEVEL)]
        self.labels = ["truth", "visible"]

    def add(self, label: str, vae: pv.VAE, z: Tensor) -> None:
        """Add a row of completions E[x | z] for each of the first draws of z."""
        means = vae.decode(z[:NUM_COMPLETIONS, :NUM_SHOWN]).mean
        self.images += list(torch.where(self.visible.isnan(), means, self.visible))
        self.labels += [label] + [""] * (NUM_COMPLETIONS - 1)

    def save(self, folder: Path) -> None:
        """Write completions.png to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        title = "two completions by each way, from two guides"
        figure = figures.image_grid(self.images, title, self.labels, max_level=1)
        figure.savefig(folder / "completions.png", dpi=120)


def read_options() -> Namespace:
    """Return the options of the command line."""
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "--source", type=Literal["MNIST", "Digits"], default="MNIST", help="the data"
    )
    parser.add_argument(
        "--run", type=str, help="a run folder with a VAE to use in place of training one"
    )
    parser.add_argument(
        "--epochs",
        type=PositiveInt,
        default=6,
        help="how long to train the VAE, and then the other encoder",
    )
    parser.add_argument(
        "--rows", type=PositiveInt, default=100, help="how many test rows to complete"
    )
    parser.add_argument(
        "--draws", type=PositiveInt, default=400, help="how many draws of z to hand on for each row"
    )
    parser.add_argument("--seed", type=Seed, default=0, help="the seed of the random draws")
    parser.add_argument("--out", type=str, help="a folder for a picture of completions")
    return parser.parse_args(sys.argv[1:])


def main() -> int:
    options = read_options()
    if options.out is not None:
        output_folder(options.out, "out")
    torch.manual_seed(options.seed)
    source = getattr(pv, options.source)()
    train_rows, _, test = pv.load_splits(source, pv.DynamicDraw())
    if options.rows > len(test):
        raise ValueError(f"'rows' must be at most the {len(test)} test rows, got {options.rows}.")
    if options.draws < FEWEST_DRAWS:
        raise ValueError(f"'draws' must be at least {FEWEST_DRAWS}, got {options.draws}.")
    guides = two_guides(train_rows, options)

    x = test.batch(slice(options.rows))
    visible = upper_half(x)
    hidden = torch.where(visible.isnan(), x, torch.nan)
    picture = Picture(x, visible)
    print(
        f"{'trained on':<21}{FEW_DRAWS:>9} draws{'gain':>11}{options.draws:>14} draws{'gain':>11}"
    )
    for trained_on, vae in guides.items():
        of_guide = torch.zeros(2, len(x))
        for name, draw in WAYS.items():
            z = draw(vae, visible, options.draws)
            few, many = score(vae, hidden, z)
            if name == "guide":
                of_guide = torch.stack([few, many])
            gain_of_few, gain_of_many = torch.stack([few, many]) - of_guide
            columns = (few, gain_of_few, many, gain_of_many)
            print(f"{trained_on:<8}{name:<12}", *map(mean_and_error, columns))
            picture.add(f"{trained_on}: {name}", vae, z)
    if options.out is not None:
        picture.save(Path(options.out))
    return 0


if __name__ == "__main__":
    run(main)
