"""Regress on the latents of a VAE whose data are full of holes: four ways to bring in what its guide knows of z.

The log area of a tumour's largest nuclei (y) is predicted from ten means over its nuclei (x), of which each row misses a
random share: q(z | x) is narrow for some rows, wide for others. The regression is y ~ N(a + bᵀz, s²), all standardised.
"draws" gains 0.28 nats and "weighted" 0.46; where y is mostly noise, as in the diabetes data, it is 0.01 at most.

- mean: E_q[z | x] plugged in. Predictions are right on average, as E[y | x] = a + bᵀE[z | x], but all equally sure.
- draws: the mean over the guide's draws is inside the logarithm, p(y | x) ≈ (1/S) Σ_s N(y; a + bᵀz_s, s²).
- weighted: the same with draws of p(z | x), importance-resampled from those of the guide.
- guide: z is a local latent with the VAE's guide as it stands. That has not seen y: b is fitted to wrong z, and shrinks.
"""

import sys
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, autoguide
from sklearn.datasets import load_breast_cancer
from torch import Tensor

import pyro_vae as pv
from pyro_vae.runs import SentenceParser, run

LATENT_DIM, NUM_DRAWS, X_DIM, TARGET = 3, 200, 10, 23


def train_vae(x: Tensor, epochs: int) -> pv.VAE:
    """A VAE for few rows: the decoder is linear, and the scale has a floor."""
    likelihood = pv.NormalLikelihood(
        torch.nn.Linear(LATENT_DIM, X_DIM), X_DIM, pv.LearnedScale(X_DIM, min_scale=0.1)
    )
    posterior = pv.DiagNormalPosterior(
        pv.WithMask(pv.MLP(2 * X_DIM, [64], (2, LATENT_DIM))), X_DIM, LATENT_DIM
    )
    vae = pv.VAE(pv.StandardNormalPrior(LATENT_DIM), likelihood, posterior, missing="nan")
    pv.fit(vae, x, pv.Training(epochs, pv.Shuffled(32), partial(torch.optim.Adam, lr=3e-3)))
    return vae.eval().requires_grad_(False)


def weights() -> tuple[Tensor, Tensor, Tensor]:
    """a, b and s, which all rows share."""
    intercept, scale = (
        pyro.sample("intercept", dist.Normal(0.0, 1.0)),
        pyro.sample("scale", dist.LogNormal(-1.0, 1.0)),
    )
    return (
        intercept,
        pyro.sample("slope", dist.Normal(torch.zeros(LATENT_DIM), 1.0).to_event(1)),
        scale,
    )


def model_of_draws(z: Tensor, y: Tensor) -> None:
    """p(y | x) as a mixture over draws of z, `(S, B, D)`."""
    intercept, slope, scale = weights()
    p_y = dist.Normal((intercept + z @ slope).T, scale)
    with pyro.plate("data", len(y)):
        pyro.sample(
            "y", dist.MixtureSameFamily(dist.Categorical(torch.ones(p_y.batch_shape)), p_y), obs=y
        )


def model_of_rows(vae: pv.VAE, x: Tensor, y: Tensor) -> None:
    """p(z) p(y | z) for each row; log p(x | z) is left out: with z drawn by a frozen guide, its mean is a constant."""
    intercept, slope, scale = weights()
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", vae.prior())
        pyro.sample("y", dist.Normal(intercept + z @ slope, scale), obs=y)


def fitted(
    model: Callable, local_guide: Callable, seen: Tensor, y: Tensor, steps: int
) -> list[tuple[Tensor, ...]]:
    """Draws of a, b, s from their autoguide, trained beside a guide of what is local; both are shown x or draws of z."""
    q_weights = autoguide.AutoMultivariateNormal(weights)

    def guide(seen: Tensor, y: Tensor) -> None:
        q_weights()
        local_guide(seen)

    with (
        pyro.get_param_store().scope()
    ):  # where the parameters of all autoguides of one class have the same names
        svi = pv.SVI(model, guide, partial(torch.optim.Adam, lr=0.02), Trace_ELBO())
        for _ in range(steps):
            svi.step(seen, y)
        return [poutine.condition(weights, q_weights())() for _ in range(NUM_DRAWS)]


@torch.no_grad()
def tested(drawn: list[tuple[Tensor, ...]], z: Tensor, y: Tensor) -> Tensor:
    """log p(y | x) in nats, and the squared error of E[y | x], both over draws of all unknowns; `(2, B)`."""
    p_y = [dist.Normal(intercept + z @ slope, scale) for intercept, slope, scale in drawn]
    error = y - torch.cat([each.mean for each in p_y]).mean(0)
    return torch.stack([pv.log_mean_exp(torch.cat([each.log_prob(y) for each in p_y])), error**2])


def by_way(x: Tensor, y: Tensor, test: Tensor, epochs: int, steps: int) -> dict[str, Tensor]:
    """What `tested` says of each way, for rows that nothing has been trained on."""
    train = torch.isin(torch.arange(len(x)), test, invert=True)
    vae = train_vae(x[train], epochs)
    draws = vae.encode(x).sample(torch.Size([NUM_DRAWS]))
    weighted = pv.importance_sample(vae.model, vae.guide, x, num_samples=5 * NUM_DRAWS).resample(
        NUM_DRAWS
    )["z"]
    z = {"mean": vae.encode(x).mean.unsqueeze(0), "draws": draws, "weighted": weighted}
    fits = {
        name: fitted(model_of_draws, lambda z: None, z[name][:, train], y[train], steps)
        for name in z
    }
    fits["guide"] = fitted(partial(model_of_rows, vae), vae.guide, x[train], y[train], steps)
    return {
        name: tested(fits[name], values[:, test], y[test])
        for name, values in (z | {"guide": draws}).items()
    }


def main() -> int:
    parser = SentenceParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100, help="how long to train the VAE")
    parser.add_argument("--steps", type=int, default=1_000, help="how long to train the autoguides")
    parser.add_argument(
        "--folds", type=int, default=5, help="into how many parts the rows are split to be tested"
    )
    parser.add_argument("--seed", type=int, default=0, help="names the random stream")
    options = parser.parse_args(sys.argv[1:])
    torch.manual_seed(options.seed)
    table = torch.from_numpy(load_breast_cancer().data + 0.01).log()  # some are 0
    table = ((table - table.mean(0)) / table.std(0)).float()
    is_missing = torch.rand(len(table), X_DIM) < torch.rand(len(table), 1)
    x, y = table[:, :X_DIM].masked_fill(is_missing, torch.nan), table[:, TARGET]
    parts = [
        by_way(x, y, test, options.epochs, options.steps)
        for test in torch.randperm(len(x)).chunk(options.folds)
    ]
    results = {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
    for name, (log_p, squares) in results.items():
        gain, rmse = log_p - results["mean"][0], squares.mean().sqrt()
        by_row = {
            "log p(y | x)": log_p,
            "gain": gain,
            "RMSE": (squares / rmse + rmse) / 2,
        }  # the delta method
        cells = [
            f"{label} {each.mean():6.3f} ± {each.std() / len(y) ** 0.5:.3f}"
            for label, each in by_row.items()
        ]
        print(f"{name:<9}", *cells)
    return 0


if __name__ == "__main__":
    run(main)
