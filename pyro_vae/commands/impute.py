"""Fill in missing entries of rows, by their mean given the observed entries, or by draws.

A `.csv` file has the columns of the data, and a `.npy` file the rows in their shape. A `.npz` file
has the arrays mean, draws, ess and khat.
"""

from jsonargparse.typing import NonNegativeInt, PositiveInt

from pyro_vae.commands.loading import add_rows, chosen_rows, loaded_vae
from pyro_vae.commands.tables import SUFFIXES, in_columns_of_file, write_results
from pyro_vae.evaluation import impute
from pyro_vae.inference.psis import TRUSTED_KHAT
from pyro_vae.runs import SentenceParser, new_file, run_options, run_parser
from pyro_vae.support import progress_shown


def main() -> int:
    """Impute the rows, and write them."""
    options = run_options(command_parser())
    out = new_file(options.out, "out", options.overwrite, SUFFIXES)
    if options.num_draws and out.suffix != ".npz":
        raise ValueError(f"'out' must end in .npz to hold draws, got {options.out}.")
    vae = loaded_vae(options)
    rows = chosen_rows(options)
    with progress_shown(options.progress):
        imputed = impute(
            vae,
            rows,
            num_samples=options.num_samples,
            num_draws=options.num_draws,
            seed=options.seed,
        )
    arrays = {name: value.numpy() for name, value in imputed._asdict().items()}
    if not options.num_draws:
        del arrays["draws"]
    cells = in_columns_of_file(arrays["mean"], rows.names)
    write_results(out, arrays, {**cells, "khat": arrays["khat"].tolist()})
    num_missing = int(rows.batch(slice(None)).isnan().sum())
    uncertain = int((imputed.khat > TRUSTED_KHAT).sum())
    print(f"{num_missing} entries of {len(rows)} rows are filled in, in {out}.")
    if uncertain:
        print(f"k-hat exceeds {TRUSTED_KHAT} in {uncertain} rows: do not rely on these.")
    return 0


def command_parser() -> SentenceParser:
    """Return the parser of the command line."""
    parser = run_parser(__doc__)
    add_rows(parser, "data")
    parser.add_argument(
        "--out", type=str, default="imputed.csv", help="the file to write: .csv, .npz or .npy"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--num_samples", type=PositiveInt, default=1000, help="draws of z a row behind the mean"
    )
    parser.add_argument(
        "--num_draws", type=NonNegativeInt, default=0, help="imputed copies, in a .npz file"
    )
    return parser
