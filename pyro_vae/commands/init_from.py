"""The option `--init_from RUN`: a VAE that starts from the best weights of another run."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pyro_vae import VAE, load
from pyro_vae.commands.request import Request, differences
from pyro_vae.runs import RunFolder, settings_parser
from pyro_vae.support.modules import state_difference

# Settings of the VAE that say how new weights start, or which rows are taken.
_OF_THE_START = ("vae.initialize_bias", "vae.initialize_prior", "vae.missing")


class Start(NamedTuple):
    """Weights that training starts from.

    Arguments:
        run: the run folder that they come from.
        vae: the VAE of that run, on the CPU.
    """

    run: str
    vae: VAE

    def give(self, vae: VAE) -> None:
        """Give a new VAE these weights, and the constants of the encoder's input.

        Raises:
            ValueError: if its weights have other names or shapes, or its rows another shape.
        """
        here = tuple(vae.x_shape)
        there = tuple(self.vae.x_shape)
        if here != there:
            raise ValueError(
                f"'init_from' must be a run on rows of the shape {here}, got {self.run}, whose "
                f"rows have the shape {there}."
            )
        state = self.vae.state_dict()
        difference = state_difference(vae, state)
        if difference is not None:
            raise ValueError(
                f"'init_from' must be a run whose VAE has the same weights, got {self.run}: "
                f"{difference}"
            )
        vae.load_state_dict(state)


def read_start(run: str, request: Request) -> Start:
    """Return the best weights of a run whose VAE is the one that is asked for.

    Arguments:
        run: the run folder.
        request: the settings that are asked for.

    Raises:
        ValueError: if the folder holds no such run.
    """
    if not Path(run, "run.json").is_file():
        state = "has no run.json" if Path(run).is_dir() else "does not exist"
        raise ValueError(
            f"'init_from' must be the folder of a run, got {run or 'an empty string'}, "
            f"which {state}."
        )
    allow = request.options.allow
    wanted = yaml.safe_load(request.text)["vae"]
    for place, before, after in differences(_vae_of(run, allow), wanted, "vae."):
        if place not in _OF_THE_START:
            setting = place.replace(".init_args", "").replace(".class_path", "")
            raise ValueError(
                f"'{setting}' must be {before} as in the run of 'init_from', got {after}: to take "
                f"all its settings, name {Path(run, 'settings.yaml')} in place of the preset."
            )
    return Start(run, load(run, allow=allow))


def _vae_of(run: str, allow: list[str]) -> dict[str, Any]:
    """Return the settings of a run's VAE, all of them, as this version writes them."""
    parser = settings_parser(allow=allow)
    tree = parser.parse_object(RunFolder(run).settings(allow))
    return yaml.safe_load(parser.dump(tree, skip_unset=False))["vae"]
