import pytest
import torch

from pyro_vae.figures import in_plane, linear_grid, quantile_grid, spherical_path, straight_path


def test_a_quantile_grid_has_equal_probability_between_its_points():
    grid = quantile_grid(side=20)
    probabilities = torch.distributions.Normal(0.0, 1.0).cdf(grid)
    torch.testing.assert_close(probabilities[0, :, 0], torch.linspace(0.05, 0.95, 20))
    torch.testing.assert_close(probabilities[:, 0, 1], torch.linspace(0.95, 0.05, 20))


def test_a_grid_has_its_first_axis_to_the_right_and_its_second_upwards():
    grid = linear_grid(side=5, extent=4.0)
    assert grid[0, 0].tolist() == [-4, 4]
    assert grid[-1, -1].tolist() == [4, -4]
    assert grid[2, 2].tolist() == [0, 0]


def test_a_plane_is_zero_but_in_the_chosen_pair_of_dimensions():
    z = in_plane(linear_grid(3, 1.0), latent_dim=5, dims=(3, 1))
    assert z[0, 2].tolist() == [0, 1, 0, 1, 0]
    assert z[0, 0].tolist() == [0, 1, 0, -1, 0]
    with pytest.raises(
        ValueError, match=r"'dims' must be two dimensions from 0 to 4, got \(0, 5\)"
    ):
        in_plane(linear_grid(3), 5, (0, 5))


@pytest.mark.parametrize("path", [straight_path, spherical_path])
def test_a_path_leads_from_the_first_point_to_the_last_and_back_the_same_way(path):
    first, last = torch.randn(2, 6)
    points = path(first, last, 9)
    torch.testing.assert_close(points[0], first)
    torch.testing.assert_close(points[-1], last)
    torch.testing.assert_close(path(last, first, 9).flip(0), points)


def test_a_straight_path_has_equal_steps():
    points = straight_path(*torch.randn(2, 6), 9)
    torch.testing.assert_close(points.diff(dim=0), points.diff(dim=0)[:1].expand(8, -1))


def test_a_spherical_path_keeps_its_length_and_turns_by_equal_angles():
    first, last = torch.nn.functional.normalize(torch.randn(2, 6), dim=1)
    points = spherical_path(first, last, 9)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(9))
    cosines = (points[1:] * points[:-1]).sum(1)
    torch.testing.assert_close(cosines, cosines[:1].expand(8))


def test_a_spherical_path_between_points_of_one_direction_is_straight():
    point = torch.randn(6)
    torch.testing.assert_close(
        spherical_path(point, 2 * point, 5), straight_path(point, 2 * point, 5)
    )
