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
    return (
        math.log(math.comb(n, round(x))) + x * bernoulli(1, logit) + (n - x) * bernoulli(0, logit)
    )


def normal(x, loc, scale):
    return -0.5 * ((x - loc) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def laplace(x, loc, scale):
    return -abs(x - loc) / scale - math.log(2 * scale)


def student_t(x, df, loc, scale):
    constant = math.gamma((df + 1) / 2) / (math.gamma(df / 2) * math.sqrt(math.pi * df) * scale)
    return math.log(constant * (1 + ((x - loc) / scale) ** 2 / df) ** (-(df + 1) / 2))


def poisson(x, rate):
    return x * math.log(rate) - rate - math.log(math.factorial(round(x)))


def negative_binomial(x, mean, dispersion):
    """log of (n)(n + 1) … (n + x - 1) / x! · p^x (1 - p)^n, without the Gamma function."""
    n = 1 / dispersion
    p = mean / (mean + n)
    choices = sum(math.log((n + i) / (i + 1)) for i in range(round(x)))
    return choices + x * math.log(p) + n * math.log(1 - p)


def zero_inflated_negative_binomial(x, mean, dispersion, gate):
    return math.log(gate * (x == 0) + (1 - gate) * math.exp(negative_binomial(x, mean, dispersion)))


def beta(x, concentration1, concentration0):
    function = (
        math.gamma(concentration1)
        * math.gamma(concentration0)
        / math.gamma(concentration1 + concentration0)
    )
    return math.log(x ** (concentration1 - 1) * (1 - x) ** (concentration0 - 1) / function)


def discretized_logistic(level, loc, scale, num_levels):
    """log of the difference of two distribution functions, with so many digits that something is left of it."""
    distance = abs(level - loc) / scale
    with mpmath.workdps(40 + round(distance)):
        loc, scale = mpmath.mpf(loc), mpmath.mpf(scale)

        def below(edge):
            return 1 / (1 + mpmath.exp(-(edge - loc) / scale))

        upper = 1 if level == num_levels - 1 else below(mpmath.mpf(level) + 0.5)
        lower = 0 if level == 0 else below(mpmath.mpf(level) - 0.5)
        return float(mpmath.log(upper - lower))


def mixture(log_densities, logits):
    weights = [math.exp(logit) for logit in logits]
    pairs = zip(weights, log_densities, strict=True)
    return math.log(
        sum(weight * math.exp(log_density) for weight, log_density in pairs) / sum(weights)
    )


def categorical(one_hot, logits):
    total = math.log(sum(math.exp(logit) for logit in logits))
    return sum(x * (logit - total) for x, logit in zip(one_hot, logits, strict=True))


def normals(z, loc, scale):
    """log of Π N(z_d; loc_d, scale_d²)."""
    return sum(map(normal, z.tolist(), loc.tolist(), scale.tolist()))


def multivariate_normal(z, loc, covariance):
    centred = z - loc
    square = centred @ covariance.inverse() @ centred
    return -0.5 * (square + covariance.det().log() + len(z) * math.log(2 * math.pi)).item()


def change_of_variables(function, z, log_density):
    """log p(z) where function(z) has this log-density; the Jacobian is that of autograd."""
    jacobian = torch.autograd.functional.jacobian(function, z)
    return log_density(function(z).detach()) + jacobian.det().abs().log().item()


def mean_ratio(distribution, num_draws):
    """E[h(z) / p(z)] over draws of p, with its standard error: 1 where p is normalised and the draws follow it.

    h is a product of normals, narrower than p, so that the ratio has a variance.
    """
    pilot, z = distribution.sample((200,)), distribution.sample((num_draws,))
    h = torch.distributions.Normal(pilot.mean(0), 0.4 * pilot.std(0))
    # A copy of the draws, since a density may be kept with them.
    ratio = (h.log_prob(z).sum(-1) - distribution.log_prob(z.clone())).exp()
    return ratio.mean().item(), ratio.std().item() / num_draws**0.5


def grid_around(draws, side):
    """Points of a regular grid that reaches 10 standard deviations from the draws' mean, and the volume of a cell."""
    steps = torch.linspace(-10, 10, side)
    grid = torch.stack(torch.meshgrid(*[steps] * draws.shape[-1], indexing="ij"), dim=-1).flatten(
        0, -2
    )
    volume = (draws.std(0) * 20 / (side - 1)).prod()
    return draws.mean(0) + draws.std(0) * grid, volume


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
