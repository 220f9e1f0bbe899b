"""Rounds in virtual time: the exchange is the real one, and a clock says who takes part in it and what comes in time.

Every device that is asked computes its answer when the message comes, and the server decodes it at once. The clock then
says when that would have been; an answer that is late waits with the clock. A device with an answer under way is not
asked again, so nothing that the server would only know later changes a request before.
"""

from collections.abc import Iterable, MutableMapping
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from fedstill.errors import QuorumError
from fedstill.exchange import ServerExchange
from fedstill.flower import FederatedDistillation, RoundPolicy
from fedstill.flower.strategy import Conclude
from fedstill.rounds import RoundReplies
from fedstill.soft_labels import SoftLabels
from simulations.fleet.timekeeper import Timekeeper


class TimedDistillation(FederatedDistillation):
    """Federated distillation with a fleet that lives in virtual time.

    Args:
        clock: the run's.
        exchange: as in `FederatedDistillation`, likewise the others.
        conclude: makes a round's answers into knowledge.
        policy: quorum and waiting.
        first_round: the first round to run.
        scratch: a folder on a disk for the soft labels of large rounds.
    """

    def __init__(
        self,
        clock: Timekeeper,
        exchange: ServerExchange,
        conclude: Conclude,
        policy: RoundPolicy,
        first_round: int,
        *,
        scratch: Path | None = None,
    ) -> None:
        super().__init__(exchange, conclude, policy, first_round, scratch=scratch)
        self.clock = clock
        self._failing: dict[int, float] = {}
        self._down: dict[int, int] = {}
        self._uplink: dict[int, int] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message per host; a device that will fail gets its request, and does nothing that lasts."""
        before = dict(self.traffic.downlink)
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for device in self._failing:
            self.traffic.add_downlink(device, len(self.exchange.request(device, server_round)))
        asked = sorted({*(self._asked or ()), *self._failing})
        self._down = {device: self.traffic.downlink[device] - before.get(device, 0) for device in asked}
        self._uplink = dict(self.traffic.uplink)
        return messages

    def _choose(self, round_number: int, reached: list[int]) -> list[int] | None:
        asked = self.clock.begin(round_number, reached)
        fates = {device: self.clock.fails(device, round_number) for device in asked}
        self._failing = {device: share for device, share in fates.items() if share is not None}
        return [device for device in asked if device not in self._failing]

    def _settle(self, replies: RoundReplies[SoftLabels]) -> RoundReplies[SoftLabels]:
        sent = {
            device: self.traffic.uplink.get(device, 0) - self._uplink.get(device, 0) for device in self._asked or ()
        }
        settled = self.clock.end(replies, self._down, sent, self._failing)
        quorum = self.clock.fleet.quorum
        if settled.answers < quorum:  # the base class would advise a resumed run, which draws the same again
            raise QuorumError(
                f"round {replies.round_number}: {settled.answers} answers of {len(self._down)} devices that were asked,"
                f" the quorum is {quorum}; begin anew with another fleet or exchange.quorum"
            )
        return settled

    def _box(self, round_number: int) -> MutableMapping[int, SoftLabels]:
        if self.clock.lets_answers_be_late:
            return {}  # what may be joined later is kept in memory and in the checkpoint
        return super()._box(round_number)
