"""The best model of some rows without z: what a VAE has to beat."""

import copy
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn

from pyro_vae.vae import VAE

# Rows that it is fitted to, and steps at most: log p of the others then hardly differs from the best one.
NUM_ROWS = 500
_NUM_STEPS = 30


class _Constant(nn.Module):
    """Numbers that depend on nothing, in the place of a network."""

    def __init__(self, out_shape: torch.Size) -> None:
        super().__init__()
        self.output_bias = nn.Parameter(torch.zeros(out_shape))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output_bias.expand(len(inputs), *self.output_bias.shape)


def fit_without_latent(vae: VAE, x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return log p(x) of rows, `(B,)`, under the best model in which x does not depend on z.

    It is the likelihood of the VAE with constants in place of its network's outputs, fitted to rows by maximum likelihood,
    with its scale where that is learned.

    Arguments:
        vae: the VAE; left as it is.
        x: the rows to fit, `(N, *x_shape)`.

    Returns:
        The function; None where the likelihood takes a context, or where no finite fit is found.
    """
    if vae.likelihood.context_dim:
        return None
    constant = _with_constants(vae, x)

    def log_prob(x: Tensor) -> Tensor:
        return constant.log_likelihood(x, x.new_zeros(len(x), vae.latent_dim))

    try:
        with torch.enable_grad():
            _maximise(constant.likelihood, lambda: log_prob(x).mean() / x[0].numel())
        constant.likelihood.requires_grad_(False)
        is_finite = bool(log_prob(x).isfinite().all())
    except ValueError:  # torch's word on parameters of a distribution that a step made NaN
        return None
    return log_prob if is_finite else None


def _with_constants(vae: VAE, x: Tensor) -> VAE:
    """A copy whose likelihood has constants in place of its network.

    They start at the mean of the rows where there is a link. Prior and posterior are those of the VAE.
    """
    constant = _Constant(vae.likelihood.out_shape).to(x)
    shared = {id(part): part for part in (vae.prior, vae.posterior)}
    vae = copy.deepcopy(vae, {id(vae.likelihood.network): constant, **shared})
    vae.likelihood.requires_grad_(True)
    with suppress(ValueError):  # a likelihood of the user's own without a link starts at zeros
        vae.likelihood.initialize_bias(x.nanmean(0).nan_to_num(0.0))
    return vae


def _maximise(likelihood: nn.Module, objective: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=_NUM_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -objective()
        loss.backward()
        return loss

    if objective().requires_grad:  # a likelihood may have nothing to fit
        optimizer.step(closure)
