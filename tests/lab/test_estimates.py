"""Means and their uncertainties, against numpy and against repeated draws."""

import numpy as np
import pytest
import torch
from scipy.stats import sem

from lab.estimates import format_spread, mean_and_error, spread


def test_the_standard_error_is_the_deviation_over_the_root_of_the_number():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 3 + 1
    found = mean_and_error(values)
    assert found["mean"] == pytest.approx(values.double().mean().item())
    assert found["standard_error"] == pytest.approx(sem(values.double().numpy()))
    many = torch.randn(2000, 50, generator=torch.Generator().manual_seed(1))
    errors = [mean_and_error(row)["standard_error"] for row in many]
    assert np.mean(errors) == pytest.approx(many.mean(1).std().item(), rel=0.05)


class WithoutDouble(torch.Tensor):
    """Values on a device that has no float64, as Apple's."""

    def double(self):
        raise TypeError("the MPS framework doesn't support float64")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_a_device_without_float64_has_means_too():
    assert mean_and_error(torch.tensor([1.0, 3.0]).as_subclass(WithoutDouble)) == {"mean": 2.0, "standard_error": 1.0}


def test_spread_is_the_sample_deviation_and_of_one_value_there_is_none():
    found = spread([1.0, 2.0, 4.0])
    assert found["deviation"] == pytest.approx(np.std([1, 2, 4], ddof=1)) and found["values"] == [1.0, 2.0, 4.0]
    assert format_spread(found, ".1f", ".3f") == "2.3 ± 1.528" and format_spread(spread([5.0])) == "5.00"
