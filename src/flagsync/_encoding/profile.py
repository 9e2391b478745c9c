"""An identity and its flags -> the message that sets the properties of its profile.

Guarantee: a message holds all of the identity's flags, or there is none and a reason why. Boundary: does no I/O.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter

from flagsmith.models import Flag

from flagsync._encoding.distinct_id import NotMirrored, distinct_id_of
from flagsync._encoding.envelope import Envelope
from flagsync._encoding.evaluation import Evaluation, EvaluationKeys, read_flags
from flagsync._encoding.pacer import Pacer
from flagsync._encoding.properties import Properties, PropertyValue
from flagsync._outbox.contract import MAX_MESSAGE_BYTES, Destination, Message
from flagsync._report import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """How identities and flags are named in Mixpanel.

    Attributes:
        distinct_id: Identifier -> ``distinct_id``; None: not mirrored.
        property_name: Feature name -> property name; None: left out.
        property_value: Flag -> property value.
    """

    distinct_id: Callable[[str], str | None]
    property_name: Callable[[str], str | None]
    property_value: Callable[[Flag], PropertyValue]


class ProfileEncoder:
    """Encodes the profiles of one Mixpanel project. For one thread.

    Args:
        token: Of the project.
        mapping: How identities and flags are named.
        destination: Of the messages.
        resend_after_seconds: Of the messages.
        pacer: Lets the thread rest between pieces of work.
        report: Told once of each flag that is left out or cut.
    """

    def __init__(
        self,
        token: str,
        mapping: Mapping,
        destination: Destination,
        *,
        resend_after_seconds: float,
        pacer: Pacer,
        report: Reporter,
    ) -> None:
        self.destination, self._resend_after_seconds = destination, resend_after_seconds
        self._distinct_id, self._pacer = mapping.distinct_id, pacer
        self._envelope, self._keys = Envelope(token), EvaluationKeys(pacer.pause)
        self._properties = Properties(mapping.property_name, mapping.property_value, report.warn_once)
        self._evaluation_seconds = 0.0  # that the last one took, in one piece

    def distinct_id(self, identifier: object) -> str | NotMirrored:
        """Return the profile of an identifier."""
        return distinct_id_of(identifier, self._distinct_id)

    def evaluation_key(self, evaluation: Evaluation) -> int | None:
        """Return a number that is equal for evaluations which must have the same result; None if unknown."""
        return self._keys.of(evaluation)

    def encode(
        self, distinct_id: str, evaluation: Evaluation, key: int | None, evaluated_at: float
    ) -> Message | NotMirrored:
        """Return the message that sets all properties of a profile.

        Raises:
            OverflowError: Mixpanel does not take a record of this size.
            Exception: What Flagsmith's engine raises.
        """
        self._pacer.pause(self._evaluation_seconds)
        began = perf_counter()
        flags = read_flags(evaluation)
        self._evaluation_seconds = perf_counter() - began
        self._pacer.pause()
        if not (properties := self._properties.of(flags)):
            return NotMirrored("no flag has a property name")
        body = self._envelope.people_set(distinct_id, properties)
        if len(body) > MAX_MESSAGE_BYTES:
            raise OverflowError
        fingerprint = blake2b(properties.encode(), digest_size=16).digest()
        where, resend = self.destination, self._resend_after_seconds
        return Message(distinct_id, fingerprint, body, evaluated_at, where, resend, key)
