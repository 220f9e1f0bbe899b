"""Federated distillation for Flower: a Strategy for the ServerApp and a helper for the ClientApp that answers it."""

from fedstill.flower.client import answer, answer_alone, describe
from fedstill.flower.strategy import Exchange, FederatedDistillation, RoundPolicy, RoundStrategy
from fedstill.rounds import DeviceAnswer

__all__ = [
    "DeviceAnswer",
    "Exchange",
    "FederatedDistillation",
    "RoundPolicy",
    "RoundStrategy",
    "answer",
    "answer_alone",
    "describe",
]
