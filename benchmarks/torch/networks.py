"""Networks: MLPs with PyTorch's own initialization, and their arithmetic without nn.Module's overhead, for acting."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

HIDDEN_SIZES = (32, 32)
Layers = list[tuple[Tensor, Tensor]]


def mlp(inputs: int, outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    """inputs -> 32 -> 32 -> outputs; weights and biases start uniform in +-1/sqrt(inputs of the layer)."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise((inputs, *HIDDEN_SIZES, outputs)):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def layers_of(network: nn.Sequential, device: str | torch.device) -> Layers:
    """Weights (transposed) and biases, outside of autograd: views of the parameters if they are on that device."""
    linear = [module for module in network if isinstance(module, nn.Linear)]
    return [(layer.weight.detach().to(device).t(), layer.bias.detach().to(device)) for layer in linear]


def forward_tanh(layers: Layers, x: Tensor) -> Tensor:
    """What an mlp with nn.Tanh computes, in half the time for a few rows: calling modules costs as much as the work."""
    for weight, bias in layers[:-1]:
        x = torch.addmm(bias, x, weight).tanh_()
    return torch.addmm(layers[-1][1], x, layers[-1][0])


def forward_relu(layers: Layers, x: Tensor) -> Tensor:
    """What an mlp with nn.ReLU computes."""
    for weight, bias in layers[:-1]:
        x = torch.addmm(bias, x, weight).relu_()
    return torch.addmm(layers[-1][1], x, layers[-1][0])
