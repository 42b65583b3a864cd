"""Coordinates of latents: there and back, the Jacobian by autograd, and the guide's draws as a standard normal."""

from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_vae.inference.coordinates import Coordinates
from pyro_vae.inference.programs import Programs
from pyro_vae.inference.row_plate import RowPlate, samples_plate
from pyro_vae.inference.supports import Kinds, ToReal, ToSupport

pytestmark = pytest.mark.usefixtures("float64")

# What a latent looks like: its distribution for one row and draw, and whether it lies in the inner plate.
KINDS = {
    "real": (lambda: dist.Normal(1.0, 3.0), False),
    "real event": (lambda: dist.Normal(torch.arange(6.0).reshape(3, 2), 2.0).to_event(2), False),
    "positive": (lambda: dist.Gamma(2.0, 3.0), True),
    "positive event": (lambda: dist.LogNormal(torch.tensor([0.0, 5.0]), 0.5).to_event(1), True),
    "unit interval": (lambda: dist.Beta(2.0, 3.0), False),
    "interval": (
        lambda: dist.Uniform(torch.tensor([-1.0, 4.0]), torch.tensor([1.0, 6.0])).to_event(1),
        True,
    ),
    "simplex": (lambda: dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0, 2.0])), False),
    "simplices": (lambda: dist.Dirichlet(torch.ones(2, 3)).to_event(1), True),
    "correlations": (lambda: dist.LKJCholesky(3, torch.tensor(2.0)), False),
}
MIXED = [
    "real event",
    "positive",
    "simplices",
    "unit interval",
    "real",
    "simplex",
    "positive event",
]
# The plate of 4 rows, and the shape of a latent in it, and in an inner plate of 3 too.
PLATES = {
    "alone": (RowPlate(4, -1, 1), (4,), None),
    "inner to the left": (RowPlate(4, -1, 2), (1, 4), (3, 4)),
    "inner to the right": (RowPlate(4, -2, 2), (4, 1), (4, 3)),
    "between": (RowPlate(4, -2, 3), (1, 4, 1), (3, 4, 1)),
    "none": (None, (), (3,)),
}


def program_of(names, plate):
    """A program with these latents, each in the plate of the rows and where it says so in the inner one."""
    _, outer, inner = PLATES[plate]

    def program():
        with ExitStack() as rows:
            if plate != "none":
                rows.enter_context(pyro.plate("rows", 4, dim=-2 if outer[-1] == 1 else -1))
            for name in names:
                make, is_inner = KINDS[name]
                with ExitStack() as inside:
                    if is_inner and inner is not None:
                        dim = next(dim for dim in range(-len(inner), 0) if inner[dim] == 3)
                        inside.enter_context(pyro.plate("inner", 3, dim=dim))
                    pyro.sample(name, make())

    return program


class Example:
    """Draws of latents, the maps of a program that has them, and the coordinates of these draws."""

    def __init__(self, program, draws, plate):
        self.program, self.draws, self.plate, self.kinds = program, draws, plate, Kinds()
        self.coordinates = Coordinates(self.real(draws), plate)

    def real(self, draws):
        return self.run(draws, lambda values: ToReal(values, self.kinds), lambda at: at.real)

    def white(self, draws):
        return self.coordinates.white(self.real(draws))

    def values(self, white):
        """The latents at w, and the log-determinant of their map from real numbers."""
        real = self.coordinates.real(white)
        values = self.run(real, lambda part: ToSupport(part, self.kinds), lambda at: at.values)
        log_dets = self.run(real, lambda part: ToSupport(part, self.kinds), lambda at: at.log_dets)
        if self.plate is None:
            log_dets = {name: log_det.reshape(len(white), -1) for name, log_det in log_dets.items()}
        return values, self.coordinates.total(log_dets)

    def run(self, numbers, make, result):
        """All draws in a plate; one after the other without rows, as NUTS goes."""
        count = len(next(iter(numbers.values())))
        if self.plate is not None:
            at = make(numbers)
            with samples_plate(count, self.plate.max_plate_nesting):
                at(self.program)()
            return result(at)
        found = []
        for number in range(count):
            at = make({name: values[number] for name, values in numbers.items()})
            at(self.program)()
            found.append(result(at))
        return {name: torch.stack([each[name] for each in found]) for name in numbers}


def example_of(names, plate, num_draws=60, dtype=torch.float64):
    draws = {}
    _, outer, inner = PLATES[plate]
    for name in names:
        make, is_inner = KINDS[name]
        shape = inner if is_inner and inner is not None else outer
        draws[name] = make().expand(shape).sample((num_draws,)).to(dtype)
    return Example(program_of(names, plate), draws, PLATES[plate][0])


CASES = [([name], "inner to the left") for name in KINDS] + [(MIXED, plate) for plate in PLATES]


@pytest.mark.parametrize(("names", "plate"), CASES)
def test_there_and_back_is_the_identity(names, plate):
    example = example_of(names, plate)
    draws, coordinates = example.draws, example.coordinates
    assert coordinates.names == list(draws)
    white = example.white(draws)
    assert white.shape[:-1] == ((60,) if plate == "none" else (60, 4))
    values, log_det = example.values(white)
    assert log_det.shape == white.shape[:-1]
    assert values.keys() == draws.keys()
    for name, value in draws.items():
        torch.testing.assert_close(values[name], value, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(example.white(values), white, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("names", "plate"), CASES)
def test_the_guides_draws_have_mean_0_and_variance_1_in_each_coordinate(names, plate):
    example = example_of(names, plate)
    white = example.white(example.draws)
    torch.testing.assert_close(white.mean(0), torch.zeros_like(white[0]), atol=1e-9, rtol=0)
    torch.testing.assert_close(white.var(0), torch.ones_like(white[0]), atol=1e-9, rtol=0)


def free(name, values):
    """The numbers of a latent that are not given by its others, flat after the first dimension."""
    if name in ("simplex", "simplices"):
        values = values[..., :-1]
    if name == "correlations":
        values = values[..., *torch.tril_indices(3, 3, -1)]
    return values.reshape(len(values), -1)


def log_det_of_row(example, white, row):
    """log |dT/du| of one row by autograd, with z = T(u) and u = loc + scale w."""

    def latents(part):
        changed = white.clone() if row is None else white.index_put((torch.tensor(row),), part)
        values, _ = example.values((part if row is None else changed).unsqueeze(0))
        rows_second = (lambda value: value[:, None]) if row is None else example.plate.rows_second
        parts = [
            free(name, rows_second(value)[:, 0 if row is None else row])
            for name, value in values.items()
        ]
        return torch.cat(parts, dim=1)[0]

    scale = example.coordinates.scale
    own, scale = (white, scale) if row is None else (white[row], scale[row])
    jacobian = torch.autograd.functional.jacobian(latents, own)
    return jacobian.det().abs().log() - scale.log().sum()


@pytest.mark.parametrize(("names", "plate"), CASES)
def test_the_jacobian_is_that_of_autograd_row_by_row(names, plate):
    example = example_of(names, plate)
    coordinates = example.coordinates
    white = 0.5 * torch.randn(2, *coordinates.loc.shape)
    found = example.values(white)[1]
    if plate == "none":
        expected = log_det_of_row(example, white[1], None)
        torch.testing.assert_close(found[1], expected, atol=1e-8, rtol=1e-8)
        return
    expected = torch.stack([log_det_of_row(example, white[1], row) for row in range(4)])
    torch.testing.assert_close(found[1], expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("plate", ["alone", "inner to the left", "inner to the right", "between"])
def test_the_rows_stay_apart(plate):
    example = example_of(MIXED, plate)
    draws, coordinates = example.draws, example.coordinates
    rows_second, white = coordinates.plate.rows_second, example.white(draws)
    moved = white.clone()
    moved[:, 2] += 0.3
    (values, log_det), (others, other_log_det) = example.values(white), example.values(moved)
    same = torch.tensor([True, True, False, True])
    assert ((log_det == other_log_det).all(0) == same).all()
    for name in draws:
        equal = (rows_second(values[name]) == rows_second(others[name])).transpose(0, 1).flatten(1)
        assert (equal.all(1) == same).all()
        assert not equal[2].any() or name == "simplex" or name == "simplices"


def test_each_row_has_its_own_mean_and_scale():
    loc, scale = torch.tensor([-5.0, 0.0, 2.0, 100.0]), torch.tensor([0.1, 1.0, 7.0, 1e-3])
    draws = {"z": dist.Normal(loc, scale).sample((20000,))}

    def program():
        with pyro.plate("rows", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    example = Example(program, draws, RowPlate(4, -1, 1))
    coordinates = example.coordinates
    # Failure rate: below 1e-5 for each of 8 (5 standard errors).
    assert ((coordinates.loc.squeeze(-1) - loc).abs() < 5 * scale / 20000**0.5).all()
    assert ((coordinates.scale.squeeze(-1) / scale - 1).abs() < 5 / 40000**0.5).all()
    values, log_det = example.values(torch.ones(1, 4, 1))
    torch.testing.assert_close(values["z"], (coordinates.loc + coordinates.scale).T)
    assert (log_det == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("plate", [RowPlate(50, -1, 1), None])
def test_a_point_mass_has_the_scale_1(dtype, plate):
    draws = {
        name: torch.rand(50, dtype=dtype).expand(200, 50) for name in ("real", "positive", "unit")
    }

    def program():
        with pyro.plate("rows", 50):
            pyro.sample("real", dist.Normal(0.0, 1.0))
            pyro.sample("positive", dist.Gamma(1.0, 1.0))
            pyro.sample("unit", dist.Beta(1.0, 1.0))

    example = Example(program, draws, plate)
    assert (example.coordinates.scale == 1).all()
    assert example.white(draws).abs().max() < 1e-5


def test_the_type_of_the_draws_is_kept():
    example = example_of(MIXED, "inner to the left", dtype=torch.float32)
    values, log_det = example.values(example.white(example.draws))
    assert {value.dtype for value in (*values.values(), log_det)} == {torch.float32}


@pytest.mark.parametrize(
    "distribution", [dist.Bernoulli(0.5), dist.Poisson(3.0), dist.Categorical(torch.ones(3))]
)
def test_discrete_latents_are_refused(distribution):
    draws = {"z": dist.Normal(0.0, 1.0).sample((9, 4)), "k": distribution.sample((9, 4))}

    def program():
        with pyro.plate("rows", 4):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("k", distribution)

    with pytest.raises(
        ValueError, match="'guide' must have continuous latents for HMC, but 'k' is discrete"
    ):
        Example(program, draws, RowPlate(4, -1, 1))


@pytest.mark.parametrize("row_dim", [-1, -2])
def test_the_plate_of_a_program_fits_its_draws(row_dim):
    def program():
        with pyro.plate("rows", 4, dim=row_dim):
            pyro.sample("outer", dist.Dirichlet(torch.ones(3)))
            with pyro.plate("inner", 3, dim=-3 - row_dim):
                pyro.sample("inner_latent", dist.LogNormal(torch.zeros(2), 1.0).to_event(1))

    plate = Programs(program, program, (), {}).row_plate()
    with pyro.plate("draws", 30, dim=-1 - plate.max_plate_nesting):
        trace = pyro.poutine.trace(program).get_trace()
    draws = {name: trace.nodes[name]["value"] for name in ("outer", "inner_latent")}
    example = Example(program, draws, plate)
    white = example.white(draws)
    assert white.shape == (30, 4, 2 + 3 * 2)
    values, log_det = example.values(white)
    torch.testing.assert_close(values, draws)
    # The density of w is p(z) |dz/dw|: normal for a log-normal latent, up to the scale that w leaves out.
    latents = (
        plate.rows_second(trace.nodes["inner_latent"]["fn"].log_prob(draws["inner_latent"]))
        .flatten(2)
        .sum(-1)
    )
    real = (example.coordinates.loc + example.coordinates.scale * white)[..., 2:]
    simplex = plate.rows_second(draws["outer"]).flatten(2)
    stick = (
        simplex.log()[..., :2].sum(-1)
        + (1 - simplex[..., 0]).log()
        + (simplex[..., 2] / (1 - simplex[..., 0])).log()
    )
    torch.testing.assert_close(
        latents + log_det - stick, dist.Normal(0.0, 1.0).log_prob(real).sum(-1)
    )
