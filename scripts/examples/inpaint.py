"""Complete digits whose lower half is missing: three ways to draw z given the upper half, from two guides.

The VAE is trained on whole digits. Its model can leave out pixels, but its encoder takes zeros in their place for paper, and
is sure of a wrong z. The other guide is a new encoder for the same model, trained on upper halves.

Each way hands on S draws z_s of each row, which know nothing of the hidden pixels. So (1/S) Σ_s p(x_hidden | z_s) is a
distribution of these, and its logarithm at the true ones is the score, in nats per row: higher is better. The gain is over
the guide's own draws. Importance resampling chooses by weight among 20 times as many. Where k̂ is above 0.7 these are far
from p(z | x_visible) still: at 400 draws the bad guide gains 4 nats of the 76 there are, and the good one nothing, as the
choice costs variety. HMC walks from the guide's draws, in as many steps, to p(z | x_visible) itself, whichever the guide:
it gains 76 nats over the bad one and 7 over the good one. Ten draws of it score no more than ten of the good guide.
"""

import sys
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import pyro_vae as pv
from pyro_vae import figures
from pyro_vae.runs import SentenceParser, run

LATENT_DIM, HIDDEN, NUM_CHAINS, NUM_STEPS, FEW_DRAWS, NUM_SHOWN, UNSEEN_LEVEL = (
    20,
    [400],
    4,
    10,
    10,
    16,
    0.2,
)
POOL = (
    2 * NUM_STEPS
)  # importance resampling looks at as many places as HMC, which warms up for half of its time


def new_encoder(x_shape: torch.Size, latent_dim: int) -> pv.Posterior:
    return pv.DiagNormalPosterior(pv.MLP(x_shape, HIDDEN, (2, latent_dim)), x_shape, latent_dim)


def new_vae(rows: pv.Rows) -> pv.VAE:
    decoder = pv.BernoulliLikelihood(pv.MLP(LATENT_DIM, HIDDEN, rows.x_shape), rows.x_shape)
    return pv.VAE(
        pv.StandardNormalPrior(LATENT_DIM), decoder, new_encoder(rows.x_shape, LATENT_DIM)
    )


def train(vae: pv.VAE, rows: pv.Rows, epochs: int) -> pv.VAE:
    """Train what is not frozen, and freeze it."""
    pv.fit(
        vae,
        rows,
        pv.Training(epochs, optimizer=partial(torch.optim.Adam, lr=2e-3), precision="bfloat16"),
    )
    return vae.eval().requires_grad_(False)


def upper_half(x: Tensor, below: float = torch.nan) -> Tensor:
    """x with another value, or with NaN for what is missing, in its lower half."""
    is_lower = torch.arange(x.shape[-2]) >= x.shape[-2] // 2
    return x.masked_fill(is_lower.unsqueeze(-1), below)


def draw_from_guide(vae: pv.VAE, visible: Tensor, num_draws: int) -> Tensor:
    """Draws of z, `(S, B, D)`."""
    return vae.encode(visible).sample(torch.Size([num_draws]))


def draw_by_importance(vae: pv.VAE, visible: Tensor, num_draws: int) -> Tensor:
    """Draws of z, resampled by weight from more draws of the guide."""
    draws = pv.importance_sample(vae.model, vae.guide, visible, num_samples=POOL * num_draws)
    share = (draws.khat > 0.7).double().mean()
    print(
        f"  k̂ above 0.7 in {share:.0%} of the rows; median effective sample size {draws.ess.median():.1f}"
    )
    return draws.resample(num_draws)["z"]


def draw_by_hmc(vae: pv.VAE, visible: Tensor, num_draws: int) -> Tensor:
    """Draws of z from chains that start at the guide, in random order."""
    counts = dict.fromkeys(("num_warmup", "num_samples"), -(-num_draws // NUM_CHAINS))
    chains = pv.hmc(
        vae.model, vae.guide, visible, num_chains=NUM_CHAINS, num_steps=NUM_STEPS, **counts
    )
    r_hat = chains.r_hat()["z"].amax(-1).median()
    print(
        f"  median over rows of the largest R̂ {r_hat:.2f}; acceptance {chains.acceptance.mean():.2f}"
    )
    return chains.merged()["z"][torch.randperm(NUM_CHAINS * counts["num_samples"])[:num_draws]]


def score(vae: pv.VAE, hidden: Tensor, z: Tensor) -> Tensor:
    """log (1/S) Σ_s p(x_hidden | z_s) of the first few draws and of all, in nats, `(2, B)`."""
    log_p = torch.cat([vae.log_likelihood(hidden, part) for part in z.split(50)])
    return torch.stack([pv.log_mean_exp(log_p[:FEW_DRAWS]), pv.log_mean_exp(log_p)])


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument(
        "--source", type=str, choices=("MNIST", "Digits"), default="MNIST", help="the data"
    )
    parser.add_argument(
        "--run", type=str, help="a run folder with a VAE to use in place of training one"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=6,
        help="how long to train the VAE, and then the other encoder",
    )
    parser.add_argument("--rows", type=int, default=100, help="how many test rows to complete")
    parser.add_argument(
        "--draws", type=int, default=400, help="how many draws of z to hand on for each row"
    )
    parser.add_argument("--seed", type=int, default=0, help="names the random stream")
    parser.add_argument("--out", type=str, help="a folder for a picture of completions")
    options = parser.parse_args(sys.argv[1:])
    torch.manual_seed(options.seed)
    rows, _, test = pv.load_splits(getattr(pv, options.source)(), pv.DynamicDraw())
    vae = (
        pv.load(options.run).requires_grad_(False)
        if options.run
        else train(new_vae(rows), rows, options.epochs)
    )
    new = pv.VAE(
        vae.prior, vae.likelihood, new_encoder(rows.x_shape, vae.latent_dim), missing="nan"
    )
    upper_rows = pv.Rows(upper_half(rows.levels.float()), rows.transform, rows.max_level)
    whole = pv.VAE(vae.prior, vae.likelihood, vae.posterior, missing="nan").eval()
    guides = {"whole": whole, "halves": train(new, upper_rows, options.epochs)}
    ways = {"guide": draw_from_guide, "importance": draw_by_importance, "HMC": draw_by_hmc}
    x = test.batch(slice(options.rows))
    visible = upper_half(x)
    hidden = torch.where(visible.isnan(), x, torch.nan)
    shown, base = visible[:NUM_SHOWN], torch.zeros(2, len(x))
    print(
        f"{'trained on':<21}{FEW_DRAWS:>9} draws{'gain':>11}{options.draws:>14} draws{'gain':>11}"
    )
    pictures, labels = [x[:NUM_SHOWN], upper_half(shown, UNSEEN_LEVEL)], ["truth", "visible"]
    for (trained_on, guided), (name, way) in product(guides.items(), ways.items()):
        z = way(guided, visible, options.draws)
        scores = score(guided, hidden, z)
        base = scores if way is draw_from_guide else base
        columns = torch.stack([scores, scores - base], 1).flatten(0, 1)
        cells = [f"{column.mean():9.2f} ± {column.std() / len(x) ** 0.5:.2f}" for column in columns]
        print(f"{trained_on:<8}{name:<12}", *cells)
        means = guided.decode(z[:2, :NUM_SHOWN]).mean
        pictures += list(torch.where(shown.isnan(), means, shown))
        labels += [f"{trained_on}: {name}", ""]
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        figure = figures.image_grid(
            pictures, "two completions by each way, from two guides", labels, max_level=1
        )
        figure.savefig(Path(options.out) / "completions.png", dpi=120)
    return 0


if __name__ == "__main__":
    run(main)
