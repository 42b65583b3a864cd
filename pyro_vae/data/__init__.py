"""Data: stored rows, their sources, and the transforms that make x from them."""

from pyro_vae.data.augmentation import Augmented
from pyro_vae.data.batch import Batch
from pyro_vae.data.batches import Batches, Shuffled, WithReplacement
from pyro_vae.data.columns import Column, columns_of, types_found
from pyro_vae.data.datasets import (
    KMNIST,
    MNIST,
    Digits,
    FashionMNIST,
    OneHot,
    TorchvisionImages,
    data_folder,
)
from pyro_vae.data.missing import Missing, filled
from pyro_vae.data.names import Names
from pyro_vae.data.readers import (
    AnnDataFile,
    ArrayFile,
    FileSource,
    HDF5File,
    ImageFolder,
    SparseFile,
    TableFile,
    TensorFile,
    source_for,
)
from pyro_vae.data.rows import Data, Rows, as_rows
from pyro_vae.data.sources import Source, Splits, load_splits
from pyro_vae.data.storage import ReadOneByOne, SparseMatrix, Storage
from pyro_vae.data.transforms import (
    DynamicDraw,
    FixedDraw,
    Identity,
    OpenUnitInterval,
    Threshold,
    Transform,
    UnitInterval,
)

__all__ = [
    "KMNIST",
    "MNIST",
    "AnnDataFile",
    "ArrayFile",
    "Augmented",
    "Batch",
    "Batches",
    "Column",
    "Data",
    "Digits",
    "DynamicDraw",
    "FashionMNIST",
    "FileSource",
    "FixedDraw",
    "HDF5File",
    "Identity",
    "ImageFolder",
    "Missing",
    "Names",
    "OneHot",
    "OpenUnitInterval",
    "ReadOneByOne",
    "Rows",
    "Shuffled",
    "Source",
    "SparseFile",
    "SparseMatrix",
    "Splits",
    "Storage",
    "TableFile",
    "TensorFile",
    "Threshold",
    "TorchvisionImages",
    "Transform",
    "UnitInterval",
    "WithReplacement",
    "as_rows",
    "columns_of",
    "data_folder",
    "filled",
    "load_splits",
    "source_for",
    "types_found",
]
