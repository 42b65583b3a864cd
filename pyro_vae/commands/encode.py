"""Write the codes of rows: mean and scale of q(z | x), draws, and k-hat.

A `.csv` file holds a table. A `.npz` file holds the arrays mean, scale, draws and khat. A `.npy`
file holds the means alone. A `.h5ad` file is a copy of such data with the codes in it.
"""

from pathlib import Path

import numpy as np
import torch
from jsonargparse.typing import NonNegativeInt
from matplotlib.figure import Figure
from torch import Tensor

from pyro_vae.commands.annotated import SUFFIX, check_annotated, write_annotated
from pyro_vae.commands.loading import add_rows, chosen_rows, loaded_vae
from pyro_vae.commands.tables import SUFFIXES, numbered, write_results
from pyro_vae.data import Rows
from pyro_vae.evaluation import Codes, encode_rows
from pyro_vae.figures import latent_scatter
from pyro_vae.runs import SentenceParser, new_file, run_options, run_parser
from pyro_vae.support import progress_shown


def main() -> int:
    """Encode the rows, and write their codes."""
    options = run_options(command_parser())
    out = new_file(options.out, "out", options.overwrite, (*SUFFIXES, SUFFIX))
    if out.suffix == SUFFIX:
        check_annotated(options.data, out)
    if options.num_draws and out.suffix != ".npz":
        raise ValueError(f"'out' must end in .npz to hold draws, got {options.out}.")
    picture = options.tsne and new_file(options.tsne, "tsne", options.overwrite, [".png"])
    vae = loaded_vae(options)
    rows = chosen_rows(options)
    with progress_shown(options.progress):
        codes = encode_rows(
            vae,
            rows,
            num_draws=options.num_draws,
            num_importance_samples=options.num_importance_samples,
            seed=options.seed,
        )
    write(codes, out, options.data)
    print(f"The codes of {len(rows)} rows in {vae.latent_dim} dimensions are in {out}.")
    if picture:
        draw(codes.mean, rows, options.seed).savefig(picture, dpi=120)
        print(f"The picture is in {picture}.")
    return 0


def write(codes: Codes, out: Path, data: str | None) -> None:
    """Write codes as the ending of the file says.

    Arguments:
        codes: the codes.
        out: the file to write.
        data: the file of the rows; None for rows of the run.
    """
    arrays = {name: value.numpy() for name, value in codes._asdict().items() if value is not None}
    if not len(codes.draws):
        del arrays["draws"]
    if out.suffix == SUFFIX and data is not None:
        write_annotated(out, data, arrays)
        return
    cells = {**numbered("mean", arrays["mean"]), **numbered("scale", arrays["scale"])}
    if codes.khat is not None:
        cells["khat"] = codes.khat.tolist()
    write_results(out, arrays, cells)


def draw(means: Tensor, rows: Rows, seed: int) -> Figure:
    """Draw the means in the plane, by t-SNE unless they lie in one, coloured by label."""
    labels = torch.zeros(len(rows), dtype=torch.int64)
    names = ["rows"]
    if rows.labels is not None and rows.labels.dim() == 1:
        labels = rows.labels
        classes = rows.class_names or ()
        names = [classes[label] for label in labels.unique().tolist()] if classes else []
    if means.shape[1] == 2:
        return latent_scatter(means, labels, "Means of q(z | x)", names=names)
    plane = torch.from_numpy(embedded(means.numpy(), seed))
    title = "t-SNE of the means of q(z | x)"
    return latent_scatter(plane, labels, title, ("t-SNE 1", "t-SNE 2"), names)


def embedded(means: np.ndarray, seed: int) -> np.ndarray:
    """Return points of a plane by t-SNE, `(N, 2)`.

    References:
        Visualizing data using t-SNE, van der Maaten and Hinton, 2008.
    """
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(means) - 1) / 3)  # scikit-learn's default, for enough rows
    return TSNE(perplexity=perplexity, random_state=seed).fit_transform(means)


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    add_rows(parser, "data")
    parser.add_argument(
        "--out", type=str, default="codes.csv", help="the file to write: .csv, .npz, .npy or .h5ad"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--num_draws", type=NonNegativeInt, default=0, help="draws of z a row, in a .npz file"
    )
    parser.add_argument(
        "--num_importance_samples",
        type=NonNegativeInt,
        default=0,
        help="draws of z a row behind its k-hat, such as 1000; 0 for no k-hat",
    )
    parser.add_argument(
        "--tsne", type=str | None, default=None, help="a .png file for a picture of the codes"
    )
    return parser
