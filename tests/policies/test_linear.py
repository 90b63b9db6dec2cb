"""Linear layers by oneDNN against those of torch."""

import pytest
import torch
from torch import nn

from quatrain.policies.linear import fast, packed


class Unlike(nn.Linear):
    """A layer that does something else."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


def model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 40), nn.Tanh(), nn.Linear(40, 5, bias=False), Unlike(5, 3)).to(dtype)


@pytest.mark.parametrize("shape", [(1, 7), (200, 7), (2, 3, 7)])
@pytest.mark.parametrize("context", [fast, packed])
def test_products_are_the_same(context, shape: tuple[int, ...]):
    layers, x = model(), torch.randn(shape)
    with torch.no_grad():
        expected = layers(x)
        with context(layers):
            assert all("forward" in vars(layers[i]) for i in (0, 2))
            torch.testing.assert_close(layers(x), expected)
    assert not any("forward" in vars(layer) for layer in layers)
    assert torch.equal(layers(x), expected)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("shape", [(1, 7), (200, 7), (2, 3, 7)])
def test_gradients_are_the_same(shape: tuple[int, ...], frozen: bool):
    layers, x = model(), torch.randn(shape, requires_grad=True)
    layers[2].weight.requires_grad_(not frozen)
    wanted = [x, *(p for p in layers.parameters() if p.requires_grad)]
    expected = torch.autograd.grad(layers(x).square().sum(), wanted)
    with fast(layers):
        found = torch.autograd.grad(layers(x).square().sum(), wanted)
    assert len(found) == (5 if frozen else 6)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_a_layer_that_was_changed_is_read_anew():
    layers, x = model(), torch.randn(3, 7)
    for _ in range(2):
        with torch.no_grad(), packed(layers):
            torch.testing.assert_close(layers(x), nn.Sequential.forward(layers, x))
            found = layers(x)
        torch.testing.assert_close(found, layers(x))
        with torch.no_grad():
            layers[0].weight.mul_(-1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("context", [fast, packed])
def test_other_precisions_are_left_alone(context, dtype: torch.dtype):
    layers = model(dtype)
    with context(layers):
        assert not any("forward" in vars(layer) for layer in layers)


def test_layers_are_themselves_again_after_an_error():
    layers = model()
    with pytest.raises(KeyError), fast(layers):
        raise KeyError
    assert not any("forward" in vars(layer) for layer in layers)
