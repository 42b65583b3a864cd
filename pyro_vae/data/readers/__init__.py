"""Readers: sources of the user's own files, each for one kind of file."""

from pyro_vae.data.readers.anndata_file import AnnDataFile
from pyro_vae.data.readers.array_file import ArrayFile
from pyro_vae.data.readers.choice import source_for
from pyro_vae.data.readers.files import FileSource
from pyro_vae.data.readers.hdf5_file import HDF5File
from pyro_vae.data.readers.image_folder import ImageFolder
from pyro_vae.data.readers.sparse_file import SparseFile
from pyro_vae.data.readers.table_file import TableFile
from pyro_vae.data.readers.tensor_file import TensorFile

__all__ = [
    "AnnDataFile",
    "ArrayFile",
    "FileSource",
    "HDF5File",
    "ImageFolder",
    "SparseFile",
    "TableFile",
    "TensorFile",
    "source_for",
]
