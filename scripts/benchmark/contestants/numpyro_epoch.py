"""NumPyro with a whole epoch compiled: the permutation, its batches, and the short last batch."""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from benchmark.contestants.contestant import Contestant, Pause
from benchmark.contestants.data import test_rows, train_rows
from benchmark.machinery.setting import X_SIZE, Setting

_OBJECTIVES = {"Trace_ELBO": Trace_ELBO, "TraceMeanField_ELBO": TraceMeanField_ELBO}
# Rows of the test set that pass through the networks at once.
_CHUNK = 1000


class NumPyroEpochs(Contestant):
    """Epochs of NumPyro's SVI, each one call of a compiled function, with x on its device.

    Arguments:
        setting: that of all contestants.
        objective: "Trace_ELBO" or "TraceMeanField_ELBO".
    """

    def __init__(self, setting: Setting, objective: str) -> None:
        super().__init__(setting)
        self.x = jax.device_put(train_rows(setting))
        optimizer = numpyro.optim.Adam(setting.lr)
        elbo = _OBJECTIVES[objective]()
        self.svi = SVI(partial(model, setting), partial(guide, setting), optimizer, elbo)
        first_batch = self.x[: setting.batch_size].astype(jnp.float32)
        self.state = self.svi.init(random.key(setting.seed), first_batch)

    def run(self, pause: Pause) -> None:
        epoch = jax.jit(self._epoch, donate_argnums=0)
        key = random.key(self.setting.seed + 1)
        while True:
            pause()
            key, this = random.split(key)
            self.state, loss = epoch(self.state, self.x, this)
            loss.block_until_ready()

    def _epoch(self, state: Any, x: Array, key: Array) -> tuple[Any, Array]:
        """Pass over the rows once; return the state, and the sum of the losses."""
        size = self.setting.batch_size
        order = random.permutation(key, len(x))
        num_whole = len(x) // size

        def step(index: Array, state: Any) -> tuple[Any, Array]:
            return self.svi.update(state, x[index].astype(jnp.float32))

        def body(number: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
            index = jax.lax.dynamic_slice_in_dim(order, number * size, size)
            state, loss = step(index, carry[0])
            return state, carry[1] + loss

        state, total = jax.lax.fori_loop(0, num_whole, body, (state, jnp.zeros(())))
        if num_whole * size < len(x):
            state, loss = step(order[num_whole * size :], state)
            total += loss
        return state, total

    def facts(self) -> dict[str, Any]:
        parameters = self.svi.get_params(self.state)
        x = test_rows(self.setting)
        key = random.key(self.setting.seed + 2)
        sums = []
        loss = jax.jit(partial(negative_elbo_sum, parameters))
        for start in range(0, len(x), _CHUNK):
            key, this = random.split(key)
            sums.append(float(loss(jnp.asarray(x[start : start + _CHUNK], jnp.float32), this)))
        return {"test_loss": sum(sums) / len(x)}


def model(setting: Setting, x: Array) -> None:
    """p(z) p(x | z)."""
    parameters = _layers("decoder", [setting.latent_dim, setting.hidden, X_SIZE])
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(setting.latent_dim), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(parameters, z)).to_event(1), obs=x)


def guide(setting: Setting, x: Array) -> None:
    """q(z | x)."""
    parameters = _layers("encoder", [X_SIZE, setting.hidden, 2 * setting.latent_dim])
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(*encode(parameters, x)).to_event(1))


def encode(parameters: dict[str, Array], x: Array) -> tuple[Array, Array]:
    """Return loc and scale of q(z | x)."""
    loc, log_scale = jnp.split(_mlp(parameters, "encoder", x), 2, axis=-1)
    return loc, jnp.exp(log_scale)


def decode(parameters: dict[str, Array], z: Array) -> Array:
    """Return the logits of x."""
    return _mlp(parameters, "decoder", z)


def negative_elbo_sum(parameters: dict[str, Array], x: Array, key: Array) -> Array:
    """Return −ELBO of some rows, in nats, with the KL in closed form and one draw of z."""
    loc, scale = encode(parameters, x)
    logits = decode(parameters, loc + scale * random.normal(key, loc.shape))
    kl = (loc**2 + scale**2 - 1).sum() / 2 - jnp.log(scale).sum()
    return kl + (jax.nn.softplus(logits) - x * logits).sum()


def _mlp(parameters: dict[str, Array], name: str, inputs: Array) -> Array:
    hidden = jax.nn.relu(inputs @ parameters[f"{name}.weight1"] + parameters[f"{name}.bias1"])
    return hidden @ parameters[f"{name}.weight2"] + parameters[f"{name}.bias2"]


def _layers(name: str, widths: list[int]) -> dict[str, Array]:
    """Declare the parameters of a network to NumPyro, drawn as `torch.nn.Linear` draws them."""
    parameters = {}
    for number, (wide, narrow) in enumerate(pairwise(widths), start=1):
        limit = wide**-0.5
        for kind, shape in (("weight", (wide, narrow)), ("bias", (narrow,))):
            draw = partial(random.uniform, shape=shape, minval=-limit, maxval=limit)
            parameter = f"{name}.{kind}{number}"
            parameters[parameter] = numpyro.param(parameter, draw)
    return parameters
