import subprocess
import sys
from typing import Literal

import pytest
import torch
from torch import nn

from fedstill.descent import Descent
from fedstill.fit import Fit


def model() -> nn.Sequential:
    torch.manual_seed(0)
    unused = nn.Linear(3, 3)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    net.register_module("unused", unused)
    net.forward = lambda inputs: net[4](net[3](net[2](net[1](net[0](inputs)))))  # type: ignore[method-assign]
    return net


@pytest.mark.parametrize(("optimizer", "momentum"), [("sgd", 0.9), ("sgd", 0.0), ("adam", 0.9)])
def test_steps_are_torchs_own_to_the_bit(optimizer: Literal["adam", "sgd"], momentum: float) -> None:
    how = Fit(20, 8, 0.05, optimizer=optimizer, momentum=momentum, weight_decay=0.01)
    ours, theirs = model(), model()
    descent = Descent(ours, how)
    reference: torch.optim.Optimizer = (
        torch.optim.SGD(theirs.parameters(), 1.0, momentum=momentum, nesterov=momentum > 0, weight_decay=0.01)
        if optimizer == "sgd"
        else torch.optim.AdamW(theirs.parameters(), 1.0, weight_decay=0.01)
    )
    for number in range(20):
        inputs, rate = torch.randn(8, 1, 4, 4), 0.05 / (1 + number)
        descent.forget()
        ours(inputs).square().sum().backward()
        descent.step(rate)
        for group in reference.param_groups:
            group["lr"] = rate
        reference.zero_grad()
        theirs(inputs).square().sum().backward()
        reference.step()
    for own, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(own, other)


def test_training_does_not_import_the_compiler() -> None:
    code = """
import sys, torch
from fedstill.descent import Descent
from fedstill.fit import Fit
net = torch.nn.Linear(2, 2)
descent = Descent(net, Fit(1, 1, 0.1))
net(torch.ones(1, 2)).sum().backward()
descent.step(0.1)
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0
