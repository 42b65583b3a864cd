"""Tensors that do not fit together are named before anything is drawn."""

import re

import numpy as np
import pytest
import torch

from pyro_vae import figures

PICTURES = torch.rand(3, 4, 4)
Z = torch.rand(10, 2)

REFUSED = {
    "'rows' must be batches of pictures of one shape, each (columns, *x_shape), got the shapes "
    "none.": lambda: figures.image_grid([], "title"),
    "each (columns, *x_shape), got the shapes (3, 4, 4), (3, 5, 5).": lambda: figures.image_grid(
        [PICTURES, torch.rand(3, 5, 5)], "title"
    ),
    "got the shapes (3,).": lambda: figures.image_grid([torch.rand(3)], "title"),
    "got the shapes (0, 4, 4).": lambda: figures.image_grid([PICTURES[:0]], "title"),
    "each a tensor, got a tensor of the shape (3, 4).": lambda: figures.image_grid(
        torch.rand(3, 4), "title"
    ),
    "a list with an array of the shape (3, 4, 4).": lambda: figures.image_grid(
        [PICTURES.numpy()], "title"
    ),
    "'row_labels' must be at most 1 labels, got 2.": lambda: figures.image_grid(
        [PICTURES], "title", ["a", "b"]
    ),
    "'column_labels' must be at most 3 labels, got 4.": lambda: figures.image_grid(
        [PICTURES], "title", (), "abcd"
    ),
    "'max_level' must be a number or None, got '255'.": lambda: figures.image_grid(
        [PICTURES], "title", max_level="255"
    ),
    "'x' must have the shape (B, *x_shape), got (3,).": lambda: figures.as_images(torch.rand(3)),
    "'means' must have the shape (5, 5, *x_shape), as the grid, got (4, 4, 16).": lambda: (
        figures.manifold(torch.rand(4, 4, 16), torch.rand(5, 5, 2))
    ),
    "'grid' must have the shape (side, side, 2), got (5, 5, 3).": lambda: figures.manifold(
        torch.rand(5, 5, 16), torch.rand(5, 5, 3)
    ),
    "'history' must have at least one epoch, got none.": lambda: figures.elbo_history([], "t"),
    "'pictures' must be pictures of one shape, (H, W) or (H, W, 3), got none.": lambda: (
        figures.animation([], [])
    ),
    "one shape, (H, W) or (H, W, 3), got (3, 3), (4, 4).": lambda: figures.animation(
        [np.zeros((3, 3)), np.zeros((4, 4))], ["a", "b"]
    ),
    "one shape, (H, W) or (H, W, 3), got (3,).": lambda: figures.animation([np.zeros(3)], ["a"]),
    "'titles' must have one title for each of 2 pictures, got 1.": lambda: figures.animation(
        [np.zeros((3, 3))] * 2, ["a"]
    ),
    "'history' must be a sequence of values, each an Epoch, got a list with 1.0.": lambda: (
        figures.elbo_history([1.0], "title")
    ),
    "'z' must have the shape (N, 2), got (10, 3).": lambda: figures.latent_scatter(
        torch.rand(10, 3), torch.zeros(10), "title"
    ),
    "'z' must have the shape (N, 2), got (0, 2).": lambda: figures.latent_scatter(
        Z[:0], torch.zeros(0), "title"
    ),
    "'labels' must have the shape (10,), got (9,).": lambda: figures.latent_scatter(
        Z, torch.zeros(9), "title"
    ),
    "'names' must have one name for each of 10 classes, got 1.": lambda: figures.latent_scatter(
        Z, torch.arange(10), "title", names=["a"]
    ),
    "'is_active' must have one mark for each of 2 rates, got 1.": lambda: figures.kl_by_dimension(
        [1.0, 2.0], [True], "title"
    ),
    "'scores' must have the shape (N,), got (10, 2).": lambda: figures.score_histogram(
        Z, {}, "title"
    ),
    "'scores' must be finite, got NaN or infinity.": lambda: figures.score_histogram(
        torch.tensor([1.0, torch.nan]), {}, "title"
    ),
    "'marked' must be a dict with values, each a number, got 0.5.": lambda: figures.score_histogram(
        Z[:, 0], 0.5, "title"
    ),
    "'khat' must have the shape (3,), got (4,).": lambda: figures.worst_rows(
        PICTURES, PICTURES, torch.rand(4)
    ),
    "'reconstructions' must have the shape (3, 4, 4), got (2, 4, 4).": lambda: figures.worst_rows(
        PICTURES, PICTURES[:2], torch.rand(3)
    ),
    "'upper' must have the shape (3,), got (2,).": lambda: figures.sandwich(
        torch.rand(3), torch.rand(2), torch.rand(3), "title"
    ),
    "'guide_bound' must have the shape (3,), got (2,).": lambda: figures.sandwich(
        torch.rand(3), None, torch.rand(2), "title"
    ),
    "'calibration' must be a Calibration, got {}.": lambda: figures.rank_histograms({}, "title"),
    "'side' must be a whole number of at least 1, got 0.": lambda: figures.quantile_grid(0),
    "'margin' must lie between 0 and 0.5, got 2.0.": lambda: figures.quantile_grid(5, margin=2.0),
    "'extent' must be greater than 0, got -1.0.": lambda: figures.linear_grid(5, extent=-1.0),
    "'grid' must have the shape (side, side, 2), got (3, 2).": lambda: figures.in_plane(
        torch.rand(3, 2), 2
    ),
    "'last' must have the shape (2,), got (3,).": lambda: figures.straight_path(
        torch.zeros(2), torch.zeros(3), 4
    ),
    "'first' must hold real numbers, got torch.int64.": lambda: figures.spherical_path(
        torch.tensor([1, 0]), torch.tensor([0, 1]), 3
    ),
    "'extent' must be a finite number, got inf.": lambda: figures.linear_grid(3, torch.inf),
    "'rates' must have at least one dimension, got none.": lambda: figures.kl_by_dimension(
        [], [], "title"
    ),
    "'steps' must be a whole number of at least 1, got 0.": lambda: figures.spherical_path(
        torch.zeros(2), torch.zeros(2), 0
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_together_is_named(sentence):
    with pytest.raises(ValueError, match=f"{re.escape(sentence)}$") as caught:
        REFUSED[sentence]()
    assert "\n" not in str(caught.value)
