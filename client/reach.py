"""Whether a device reaches its server, and whether both have the same time."""

import http.client
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from client.home import DeviceConfig, Home
from fedstill.errors import ConfigError
from fedstill.invitation import host_and_port

TIMEOUT = 10.0
CALL = "/v1/fleet/pull-messages"
"""What the SuperLink refuses for want of a signature, and a proxy before it passes on."""
AHEAD, BEHIND = 5.0, 300.0
"""Seconds by which a device's clock may be ahead of the server's, and behind it, before Flower 1.41 turns it away."""
PLAIN = 2.0
"""Seconds of difference that a `Date` header of whole seconds and the way here leave unclear."""
HINTS = {
    "certificate has expired": "renew it there, or set this machine's clock if it is wrong",
    "certificate is not yet valid": "this machine's clock is wrong, set it",
}


@dataclass(frozen=True)
class Reached:
    """A server that answered.

    Attributes:
        ahead: seconds by which this machine's clock is ahead of the server's; negative: behind.
    """

    ahead: float

    @property
    def clock(self) -> str:
        """How this machine's clock differs from the server's."""
        if abs(self.ahead) <= PLAIN:
            return "its clock and this machine's agree"
        return f"this machine's clock is {abs(self.ahead):.0f} s {'ahead' if self.ahead > 0 else 'behind'}"

    @property
    def trouble(self) -> str:
        """What stands in the way of taking part; empty: nothing."""
        if self.ahead > AHEAD + PLAIN:
            return f"this machine's clock is {self.ahead:.0f} s ahead of the server's, which refuses it; set it"
        if self.ahead < -BEHIND:
            return f"this machine's clock is {-self.ahead:.0f} s behind the server's, which refuses it; set it"
        return ""


def reach(home: Home, config: DeviceConfig) -> Reached:
    """Ask the SuperLink for the time, by a call that it refuses; only the authority of the enrolment is trusted.

    Raises:
        ConfigError: it can't be reached, or is not that authority's.
    """
    place = config.superlink
    try:
        context = ssl.create_default_context(cafile=str(home.authority))
    except OSError as error:
        raise ConfigError(f"{home.authority}: {error}; enrol anew") from error
    host, port = host_and_port(place)
    connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
    try:
        connection.connect()
        began = time.time()
        connection.request("POST", CALL, b"", {"Content-Type": "application/protobuf"})
        answer = connection.getresponse()
        here = (began + time.time()) / 2
        if answer.status != http.client.UNAUTHORIZED:
            raise ConfigError(
                f"{place} does not answer as a SuperLink does (status {answer.status}); is the server up?"
            )
        return Reached(here - parsedate_to_datetime(answer.getheader("Date", "")).timestamp())
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(refusal(place, error)) from error
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # UnicodeError: no host can have this name
        raise ConfigError(f"{place} can't be reached: {error}; is the server up, and this machine online?") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place} does not answer as a SuperLink does: it tells no time") from error
    finally:
        connection.close()


def refusal(place: str, error: ssl.SSLCertVerificationError) -> str:
    """Return why a server's certificate is refused, and what to do."""
    hint = HINTS.get(error.verify_message, "is it the right host?")
    return f"{place}: the server's certificate is refused: {error.verify_message}; {hint}"
