"""What importing the package does to a program, which module may import which, and the examples in the docstrings."""

import ast
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import pyro_vae
from pyro_vae.data import Batches, Source, Transform
from pyro_vae.objectives import KLSchedule
from pyro_vae.parts import Likelihood, Posterior, Prior, Scale

PACKAGE = Path(pyro_vae.__file__).parent
# Each module imports only from those before it.
# fmt: off
ORDER = [
    "errors", "streams", "store", "finite", "log_gamma", "distributions",
    "gamma_distributions", "missing", "parts", "moments", "inputs", "divergences",
    "flows", "transforms", "images", "arrays",
    "data", "latent", "nets", "likelihoods.links", "likelihoods.scales",
    "likelihoods.levels", "likelihoods.unit", "likelihoods.real", "likelihoods.counts", "likelihoods.product",
    "likelihoods", "priors", "posteriors", "vae", "initialization", "aggregate",
    "determinism", "importance", "psis", "correction",
    "objectives.masks", "objectives.bounds", "objectives.penalties", "objectives.schedules", "objectives", "tracing",
    "precision", "containers",
    "surroundings", "execution", "supports", "coordinates", "densities", "hamiltonian", "mcmc", "reuse",
    "soundness", "groups", "svi", "sources",
    "estimates", "without_latent", "evaluation", "imputation", "anomaly", "snapshots", "diagnostics.annealing",
    "diagnostics.calibration", "diagnostics.collapse", "diagnostics.gaps", "diagnostics.diagnosis", "diagnostics",
    "advice", "training", "resuming", "fitting", "record", "trust", "formats", "checkpoint",
    "figures", "diagnostics.figures", "swaps", "cli", "config",
]
# fmt: on

IMPORT = """
import json, logging, random, sys, warnings
import numpy, pyro, torch
import pyro.distributions, pyro.infer, pyro.poutine

def state():
    root = logging.getLogger()
    return {
        "validation of distributions": pyro.distributions.is_validation_enabled(),
        "validation of inference": pyro.infer.is_validation_enabled(),
        "validation of poutine": pyro.poutine.is_validation_enabled(),
        "validation of torch": torch.distributions.Distribution._validate_args,
        "settings of Pyro": repr(pyro.settings.get()),
        "param store": list(pyro.get_param_store().keys()),
        "default dtype": str(torch.get_default_dtype()),
        "gradients": torch.is_grad_enabled(),
        "random state of torch": torch.get_rng_state().tolist(),
        "random state of numpy": repr(numpy.random.get_state()),
        "random state of Python": repr(random.getstate()),
        "threads": torch.get_num_threads(),
        "filters of warnings": repr(warnings.filters),
        "handlers of logging": repr(root.handlers),
        "level of logging": root.level,
        "logging disabled": logging.root.manager.disable,
        "import path": sys.path,
    }

before = state()
import pyro_vae
after = state()
print(json.dumps({
    "changed": [name for name in before if before[name] != after[name]],
    "loaded": [name for name in sys.argv[1:] if name in sys.modules],
}))
"""


def modules():
    found = pkgutil.walk_packages([str(PACKAGE)], "pyro_vae.")
    return [module.name.removeprefix("pyro_vae.") for module in found]


def test_importing_the_package_changes_nothing_and_loads_only_what_every_use_needs():
    heavy = ["torchvision", "sklearn", "matplotlib", "zuko", "jsonargparse", "yaml"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, *heavy], check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == {"changed": [], "loaded": []}
    assert done.stderr == ""


# The direction of imports


def imported_modules(name):
    """The package's modules that a module imports, inside functions too."""
    found = set()
    path = PACKAGE / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = f"pyro_vae.{node.module or ''}".rstrip(".") if node.level else node.module
            # In `from pyro_vae import data` the name is the module.
            found |= {f"{module}.{alias.name}" for alias in node.names} if module == "pyro_vae" else {module}
    return {name.removeprefix("pyro_vae.") for name in found if name.startswith("pyro_vae.")}


def test_the_order_names_every_module():
    assert sorted(ORDER) == sorted(modules())


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_from_modules_before_it(name):
    assert imported_modules(name) <= set(ORDER[: ORDER.index(name)])


# The public names


def test_all_lists_what_the_package_imports_for_its_users():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("pyro_vae")
    ]
    assert set(pyro_vae.__all__) == {alias.asname or alias.name for node in imports for alias in node.names}


def test_all_is_sorted_as_ruff_sorts_it():
    def key(name):  # constants, classes, functions; numbers in a name by their value
        kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
        return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    assert pyro_vae.__all__ == sorted(set(pyro_vae.__all__), key=key)


@pytest.mark.parametrize("name", pyro_vae.__all__)
def test_every_public_name_is_there_and_explains_itself(name):
    value = getattr(pyro_vae, name)
    assert value.__module__.startswith("pyro_vae.")
    assert inspect.getdoc(value)


@pytest.mark.parametrize("base", [Prior, Likelihood, Posterior, Scale, Transform, Source, Batches, KLSchedule])
def test_every_final_class_of_a_role_is_public(base):
    def subclasses(cls):
        return {cls}.union(*(subclasses(subclass) for subclass in cls.__subclasses__()))

    final = {cls.__name__ for cls in subclasses(base) if not inspect.isabstract(cls) and cls.__module__ in all_modules}
    assert final
    assert final <= set(pyro_vae.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyro_vae' has no attribute 'lod'"):
        _ = pyro_vae.lod


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert pyro_vae.__version__ == version("pyro_vae")


# The examples

all_modules = [f"pyro_vae.{name}" for name in modules()]


def examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = (test for name in all_modules for test in finder.find(importlib.import_module(name)))
    return {test.name.removeprefix("pyro_vae."): test for test in found if test.examples}


EXAMPLES = examples()


@pytest.fixture
def names():
    """What an example may use without importing it."""
    vae = pyro_vae.VAE(
        prior=pyro_vae.StandardNormalPrior(latent_dim=2),
        likelihood=pyro_vae.BernoulliLikelihood(pyro_vae.MLP(2, [8], 16), x_shape=(1, 4, 4)),
        posterior=pyro_vae.DiagNormalPosterior(pyro_vae.MLP(16, [8], 4), x_shape=(1, 4, 4), latent_dim=2),
    )
    public = {name: getattr(pyro_vae, name) for name in pyro_vae.__all__}
    yield (names := public | {"torch": torch, "nn": nn, "Trace_ELBO": Trace_ELBO, "vae": vae})
    names.clear()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_class_does_what_it_shows(name, names):
    test = EXAMPLES[name]
    assert len([line for example in test.examples for line in example.source.splitlines()]) <= 6
    test.globs = names
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(test, out=report.append, clear_globs=False)
    assert tried
    assert not failed, "".join(report)


@pytest.mark.parametrize("base", [Prior, Likelihood, Posterior, Scale, Batches, KLSchedule])
def test_every_final_class_of_a_role_has_an_example(base):
    final = {
        name for name in pyro_vae.__all__ if inspect.isclass(cls := getattr(pyro_vae, name)) and issubclass(cls, base)
    }
    assert {name for name in final if not inspect.isabstract(getattr(pyro_vae, name))} <= {
        name.split(".")[-1] for name in EXAMPLES
    }
