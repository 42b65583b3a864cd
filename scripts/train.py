"""Train a VAE: `train.py [PRESET or YAML file] [--any.setting value]`.

Presets: digits (the default), onehot, mnist-20d, mnist-2d, mnist-dynamic-2d, mnist-10d, mnist-interpolate.
"""

import sys

import torch
from jsonargparse import Namespace

from pyro_vae import cli, evaluate, fit
from pyro_vae.checkpoint import RunFolder
from pyro_vae.config import Settings, instantiate, prepare, read_preset, settings_parser
from pyro_vae.figures import elbo_history, manifold
from pyro_vae.latent import quantile_grid
from pyro_vae.training import Fit
from pyro_vae.vae import VAE


def main() -> int:
    sys.path.append("")  # classes of the user's own, in modules of the current folder
    arguments = sys.argv[1:]
    preset = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "digits"
    settings, text, options = read_settings(preset, arguments)
    folder = RunFolder(options.run or f"runs/{preset}")
    if not options.resume:
        folder.check_free(options.overwrite)
    return train(settings, text, folder, options.resume)


def read_settings(preset: str, arguments: list[str]) -> tuple[Settings, str, Namespace]:
    """The settings, the same as YAML, and this script's own options."""
    defaults, overlay = read_preset(preset)
    parser = settings_parser(defaults)
    parser.usage = "train.py [PRESET or YAML file] [--any.setting value] [--run RUN] [--overwrite] [--resume]"
    parser.description = __doc__
    parser.add_argument("--run", type=str | None, default=None, help="the run folder; runs/PRESET when omitted")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that the folder holds")
    parser.add_argument("--resume", action="store_true", help="go on with the run that the folder holds")
    namespace = parser.parse_args([*overlay, *arguments])
    tree = Namespace({name: namespace[name] for name in Settings.__dataclass_fields__})
    return instantiate(parser, namespace), settings_parser().dump(tree, skip_unset=False), namespace


def train(settings: Settings, text: str, folder: RunFolder, resume: bool) -> int:
    """Train, save after every epoch, evaluate on the test rows, and draw the manifold where there is a plane to draw."""
    vae, splits = prepare(settings)
    earlier = folder.fit() if resume else None
    vae.to(device(settings.device))

    def save(reached: Fit) -> None:
        if not reached.history:
            folder.begin(text, splits.train.x_shape)
        folder.save(reached, vae.state_dict())

    result = fit(
        vae,
        splits.train,
        settings.training,
        validation=splits.validation,
        test=splits.test,
        resume=earlier,
        on_epoch=save,
        progress=True,
    )
    folder.save(result, vae.state_dict())
    print(f"{result.outcome.capitalize()} after {len(result.history)} epochs; the run is in {folder.path}.")
    if result.outcome == "interrupted":
        return 130
    vae.load_state_dict(result.best_weights)
    evaluation = evaluate(vae, splits.test)
    folder.save_metrics(evaluation)
    print(evaluation.table())
    elbo_history(result.history, "−ELBO by epoch").savefig(folder.path / "history.png", dpi=120)
    draw(vae, folder)
    return 0


def device(name: str) -> torch.device:
    """The device of this name; auto is cuda where there is one."""
    try:
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"'device' must be auto, or a device of torch's such as cpu or cuda, got {name}.") from error


def draw(vae: VAE, folder: RunFolder) -> None:
    """The manifold of a two-dimensional latent, beside the run's other files."""
    if vae.latent_dim == 2 and len(vae.x_shape) == 3:
        grid = quantile_grid()
        with torch.no_grad():
            means = vae.decode(grid.to(next(vae.parameters()))).mean
        manifold(means, grid).savefig(folder.path / "manifold.png", dpi=120)


if __name__ == "__main__":
    cli.run(main)
