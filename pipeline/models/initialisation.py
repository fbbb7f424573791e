"""He initialisation (the paper's reference [13]) of every layer with weights."""

from torch import nn


def he_initialise(network: nn.Module, negative_slope: float = 0.0) -> None:
    """Draw w ~ N(0, 2 / ((1 + a^2) fan_in)), with a = `negative_slope` of the rectifier after it; set biases to 0.

    Fan-in (k^2 c of the layer's input) is what Equation (10) of [13] derives for the forward pass, and the default of
    the `msra` filler in Caffe, which the authors trained with; [13] notes that fan-out would do as well. BN starts as
    the identity with empty statistics, PReLU with its slope 0.25. Raises TypeError for a layer with weights that it
    does not know, since zoo.build leaves the weights to this function.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=negative_slope, mode="fan_in", nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.PReLU):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise TypeError(f"no initialisation is defined for the weights of {type(module).__name__}")
