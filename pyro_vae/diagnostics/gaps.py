"""The inference gap log p(x) − ELBO in two parts: what the family of q costs, and what one network for all rows costs."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyro_vae.support.checks import whole
from pyro_vae.support.modules import evaluating
from pyro_vae.support.streams import stream
from pyro_vae.vae import VAE

# Draws of z for each row with which the two ELBOs are compared in the end, and how many pass through at once.
_FINAL_SAMPLES, _CHUNK = 1_000, 50


class Gaps(NamedTuple):
    """The inference gap of each row in nats, `(B,)`; approximation + amortisation = log p(x) − ELBO.

    Arguments:
        approximation: log p(x) − ELBO at the best q of the family, found for this row alone.
        amortisation: what the ELBO of the row's best q exceeds that of the network's q by.
        elbo: at the network's q(z | x).
        local_elbo: at the row's best q.
    """

    approximation: Tensor
    amortisation: Tensor
    elbo: Tensor
    local_elbo: Tensor


class _RowOutputs(nn.Module):
    """In place of a network: numbers of their own for each of some given rows."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.Parameter(outputs)

    def forward(self, rows: Tensor) -> Tensor:
        return self.outputs


def inference_gaps(
    vae: VAE,
    x: Tensor,
    y: Tensor | None = None,
    *,
    log_marginal: Tensor,
    num_steps: int = 500,
    learning_rate: float = 0.02,
    num_samples: int = 8,
) -> Gaps:
    """Split log p(x) − ELBO into approximation and amortisation gap.

    The numbers that the posterior's network gives for a row are set free and optimised for this row alone, from where the
    network puts them; what the family shares between rows (the weights of a flow) stays. Where log p(x) is a lower bound, so
    is the approximation gap. The amortisation gap does not depend on it, and is as large as the optimiser finds it: try more
    steps, above all for posteriors with correlations.

    References:
        Inference suboptimality in variational autoencoders, Cremer, Li and Duvenaud, 2018.

    Arguments:
        vae: the VAE; left as it is.
        x: rows, `(B, *x_shape)`; draws of z are of torch's default generator.
        y: the context of each row, `(B, Y)`.
        log_marginal: log p(x) of each row, `(B,)`, for instance `sandwich(...).lower`.
        num_steps: optimisation steps, with Adam and a learning rate that falls to 0.
        learning_rate: at the beginning, in units of the network's outputs.
        num_samples: draws of z for each row in a step.

    Raises:
        ValueError: a posterior without `rsample`, or that does not call its network once; a count is too small; another
            number of rows.

    Example:
        >>> from pyro_vae.diagnostics import inference_gaps
        >>> x = vae.sample(3)
        >>> inference_gaps(vae, x, log_marginal=vae.elbo(x).detach(), num_steps=2).amortisation.shape
        torch.Size([3])
    """
    whole(num_steps, "num_steps")
    whole(num_samples, "num_samples")
    if log_marginal.shape != x.shape[:1]:
        raise ValueError(f"'log_marginal' must have the shape ({len(x)},), got {tuple(log_marginal.shape)}.")
    local = with_free_outputs(vae, x, y)
    with torch.enable_grad():
        _optimise(local, x, y, num_steps, learning_rate, num_samples)
    with evaluating(vae):
        elbo, local_elbo = (_elbo(each, x, y) for each in (vae, local))
    return Gaps(log_marginal.to(local_elbo) - local_elbo, local_elbo - elbo, elbo, local_elbo)


def with_free_outputs(vae: VAE, x: Tensor, y: Tensor | None) -> VAE:
    """A copy of the VAE, frozen but for the outputs of the posterior's network, which become parameters of these rows.

    A prior that shares the posterior (a VampPrior) keeps the network.
    """
    local, outputs = copy.deepcopy(vae).requires_grad_(False).eval(), []
    posterior = copy.deepcopy(local.posterior)
    handle = local.posterior.network.register_forward_hook(lambda network, inputs, output: outputs.append(output))
    q_z = local.encode(x, y)
    handle.remove()
    if not q_z.has_rsample or len(outputs) != 1:
        raise ValueError(
            f"'vae' must have a posterior with rsample that calls its network once, got {type(vae.posterior).__name__}."
        )
    posterior.network = _RowOutputs(outputs[0])
    local.posterior = posterior
    return local


def _optimise(local: VAE, x: Tensor, y: Tensor | None, num_steps: int, learning_rate: float, num_samples: int) -> None:
    optimizer = torch.optim.Adam(local.posterior.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        optimizer.zero_grad()
        (-local.elbo(x, y, num_samples=num_samples).sum()).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _elbo(vae: VAE, x: Tensor, y: Tensor | None) -> Tensor:
    with stream(0, device=x.device):  # the same noise for both, so that their difference has less
        parts = [vae.elbo(x, y, num_samples=_CHUNK).double() for _ in range(_FINAL_SAMPLES // _CHUNK)]
    return torch.stack(parts).mean(0)
