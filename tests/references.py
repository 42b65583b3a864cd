"""Densities and closed forms written plainly, in float64 or better; pyro_vae is not imported."""

import math

import mpmath
import torch


def bernoulli(x, logit):
    p = 1 / (1 + math.exp(-logit))
    return x * math.log(p) + (1 - x) * math.log(1 - p)


def continuous_bernoulli(x, logit):
    """log of exp(x l) l / (e^l - 1), with 40 digits."""
    with mpmath.workdps(40):
        logit = mpmath.mpf(logit)
        constant = mpmath.log(logit / mpmath.expm1(logit)) if logit != 0 else 0
        return float(x * logit + constant)


def continuous_bernoulli_mean(logit):
    with mpmath.workdps(40):
        logit = mpmath.mpf(logit)
        return float(1 / (1 - mpmath.exp(-logit)) - 1 / logit) if logit != 0 else 0.5


def binomial(x, n, logit):
    return math.log(math.comb(n, round(x))) + x * bernoulli(1, logit) + (n - x) * bernoulli(0, logit)


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def categorical(one_hot, logits):
    total = math.log(sum(math.exp(logit) for logit in logits))
    return sum(x * (logit - total) for x, logit in zip(one_hot, logits, strict=True))


def kl_from_standard_normal(loc, scale):
    """KL(N(loc, scale²) ‖ N(0, 1)) for each element."""
    return 0.5 * (loc**2 + scale**2 - 1) - scale.log()


class LinearGaussian:
    """p(z) = N(0, I), p(x | z) = N(W z + b, s² I): everything about it is known."""

    def __init__(self, weight, bias, scale):
        self.weight, self.bias, self.scale = weight, bias, scale
        self.precision = weight.T @ weight + scale**2 * torch.eye(weight.shape[1])

    def log_marginal(self, x):
        covariance = self.weight @ self.weight.T + self.scale**2 * torch.eye(len(self.bias))
        centred = x - self.bias
        square = (centred @ covariance.inverse() * centred).sum(-1)
        return -0.5 * (square + covariance.logdet() + len(self.bias) * math.log(2 * math.pi))

    def posterior_loc(self, x):
        return (x - self.bias) @ self.weight @ self.precision.inverse()

    def posterior_covariance(self):
        return self.scale**2 * self.precision.inverse()


def tipping_bishop(x, latent_dim):
    """The highest mean log-likelihood that a linear-Gaussian model of x can have, and its s²."""
    num_rows, size = x.shape
    eigenvalues = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / num_rows).flip(0)
    variance = eigenvalues[latent_dim:].mean()
    log_det = eigenvalues[:latent_dim].log().sum() + (size - latent_dim) * variance.log()
    return -0.5 * (size * math.log(2 * math.pi) + log_det + size), variance
