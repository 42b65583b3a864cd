"""Images are flipped and shifted at random in steps of training, and nowhere else."""

import pytest
import torch

from pyro_vae import (
    MLP,
    VAE,
    Augmented,
    BernoulliLikelihood,
    DiagNormalPosterior,
    DynamicDraw,
    Execution,
    FixedDraw,
    Identity,
    Rows,
    Shuffled,
    StandardNormalPrior,
    Training,
    UnitInterval,
    evaluate,
    fit,
)
from pyro_vae.data import Transform

IMAGES = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(torch.uint8)


def moved(image, down, right):
    """An image whose pixel at (i, j) is that of (i + down, j + right), by hand."""
    _, height, width = image.shape
    result = torch.empty_like(image)
    for i in range(height):
        for j in range(width):
            row, column = min(max(i + down, 0), height - 1), min(max(j + right, 0), width - 1)
            result[:, i, j] = image[:, row, column]
    return result


def forms(image, flip, shift):
    """All images that an augmentation may make of one, and how often it should."""
    starts = [image, image.flip(-1)] if flip else [image]
    steps = range(-shift, shift + 1)
    return [moved(start, down, right) for start in starts for down in steps for right in steps]


@pytest.mark.parametrize(("flip", "shift"), [(True, 0), (False, 1), (True, 1), (False, 0)])
def test_each_flip_and_shift_is_equally_frequent(flip, shift):
    """Each count is within 5 standard deviations of its mean: one failure in 10^5 runs."""
    torch.manual_seed(0)
    num = 4000
    made = Augmented(Identity(), flip, shift).augment(IMAGES[:1].expand(num, -1, -1, -1))
    assert made.dtype == torch.uint8
    possible = torch.stack(forms(IMAGES[0], flip, shift))
    counts = (made[:, None] == possible).flatten(2).all(2).sum(0)
    assert counts.sum() == num
    share = 1 / len(possible)
    assert ((counts - num * share).abs() <= 5 * (num * share * (1 - share)) ** 0.5).all()


def test_images_of_a_batch_have_draws_of_their_own():
    torch.manual_seed(0)
    made = Augmented(Identity(), True, 1).augment(IMAGES[:1].expand(50, -1, -1, -1))
    assert len(made.flatten(1).unique(dim=0)) > 10


def test_only_a_step_of_training_sees_them():
    transform = Augmented(UnitInterval(), True, 2)
    rows, plain = Rows(IMAGES, transform, 255.0), Rows(IMAGES, UnitInterval(), 255.0)
    for part in (rows, rows.take(slice(None))):
        assert torch.equal(part.batch(slice(None)), plain.batch(slice(None)))
        assert torch.equal(part.mean(), plain.mean())
        assert torch.equal(part.std(), plain.std())
    torch.manual_seed(1)
    augmented = rows.training_x(rows.levels)
    torch.manual_seed(1)
    assert torch.equal(augmented, transform.augment(IMAGES) / 255)
    assert torch.equal(plain.training_x(plain.levels), plain.batch(slice(None)))


def test_missing_pixels_move_with_their_image():
    levels = IMAGES.float()
    levels[0, :, 0, 0] = torch.nan
    rows = Rows(levels, Augmented(Identity(), True, 0), 255.0)
    torch.manual_seed(0)
    x = torch.cat([rows.training_x(levels) for _ in range(20)])[::2]
    assert (x.isnan().sum((1, 2, 3)) == 3).all()
    assert {int(where) for where in x.isnan()[:, 0, 0].int().argmax(1)} == {0, 4}


def test_the_inner_transform_prepares_its_draws():
    drawn = Rows(IMAGES, Augmented(FixedDraw(3)), 255.0).levels
    assert torch.equal(drawn, Rows(IMAGES, FixedDraw(3), 255.0).levels)


def vae_and_losses(transform, trace):
    torch.manual_seed(0)
    images = torch.rand(40, 1, 6, 6)
    images[..., :3] = 0  # left and right differ
    vae = VAE(
        StandardNormalPrior(2),
        BernoulliLikelihood(MLP(2, [8], (1, 6, 6)), (1, 6, 6)),
        DiagNormalPosterior(MLP((1, 6, 6), [8], (2, 2)), (1, 6, 6), 2),
    )
    execution = Execution(trace=trace, compile=False)
    training = Training(epochs=3, batches=Shuffled(10), execution=execution)
    result = fit(vae, Rows(images, transform, 1.0), training)
    assert ("traced" in result.how) is trace
    return vae, [row.train_loss for row in result.history]


def test_a_traced_step_draws_anew():
    transform = Augmented(DynamicDraw(), True, 1)
    losses = [vae_and_losses(transform, trace)[1] for trace in (True, False)]
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    assert losses[1] != vae_and_losses(DynamicDraw(), False)[1]


def test_evaluation_of_the_training_rows_sees_them_as_they_are():
    vae, _ = vae_and_losses(DynamicDraw(), False)
    images = (torch.rand(20, 1, 6, 6) > 0.5).float()
    results = [
        evaluate(vae, Rows(images, transform, 1.0), num_samples=2).negative_elbo
        for transform in (Identity(), Augmented(Identity(), True, 2))
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Rows(torch.rand(3, 8), Augmented(Identity())), r"must have images of the shape \(C, H, W\) .* got rows of the shape \(8,\)"),
        (lambda: Rows(torch.rand(3, 1, 4, 9), Augmented(Identity(), shift=4)), r"larger than 'shift' .* got rows of the shape \(1, 4, 9\)"),
        (lambda: Augmented(Identity), "'transform' must be a Transform, .*: make an object of it"),
        (lambda: Augmented(Identity(), shift=-1), "'shift' must be a whole number of at least 0, got -1"),
        (lambda: Augmented(Identity(), "no"), "'horizontal_flip' must be True or False, got 'no'"),
    ],
)  # fmt: skip
def test_wrong_uses_are_told(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class OfUser(Transform):
    def __call__(self, levels, max_level):
        return levels

    def augment(self, levels):
        return levels[..., 1:]


def test_an_augmentation_of_the_users_keeps_the_shape():
    with pytest.raises(ValueError, match="'augment' of OfUser must return a tensor of the shape"):
        Rows(IMAGES, OfUser())
