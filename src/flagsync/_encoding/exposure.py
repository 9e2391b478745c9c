"""A flag that an identity met -> the event that Mixpanel's experiment report reads.

Guarantee: the variant is what the user was served, the control group included. For a user outside the sample there is a
reason instead of an event. Boundary: does no I/O, and remembers no exposure.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from flagsmith.models import Flag

from flagsync._clock import monotonic, time
from flagsync._encoding.calls import Calls, Exposure
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.envelope import Records
from flagsync._encoding.properties import MAX_STRING_BYTES, RESERVED_PREFIXES, PropertyValue
from flagsync._encoding.variant import NOTHING_KNOWN, Experiments, experiments_of, no_sample
from flagsync._outbox.contract import MAX_MESSAGE_BYTES, Destination, Message
from flagsync._report import Reporter, described, is_interrupt_of_application
from flagsync._rules import shown

# https://docs.mixpanel.com/docs/experiments: its report finds in this event who met which variant.
EVENT = "$experiment_started"
# An experiment without an event for 30 days leaves Mixpanel's picker.
RESEND_AFTER_SECONDS = 25 * 86400.0
DAY_SECONDS = 86400
NO_NAME = "experiment_name returned None or an empty text"
NO_VARIANT = "variant_name returned None or an empty text"
LEFT_OUT = "exposure_properties: {:.100} is left out: {}"
RESERVED = "Mixpanel or flagsync uses its name; choose another one"
NO_TEXT = "its name is not text"
NO_MAPPING = "exposure_properties returned {}, not a mapping. Such exposures are sent without its properties"
RAISED = "exposure_properties raised {}. Exposures for which it raises are sent without its properties"
EXPERIMENT_NAME, VARIANT_NAME = "Experiment name", "Variant name"
# Mixpanel needs these, besides the names with RESERVED_PREFIXES.
OWN_NAMES = frozenset(("token", "distinct_id", "time", "ip", EXPERIMENT_NAME, VARIANT_NAME))

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureNames:
    """How experiments and variants are named in Mixpanel.

    Attributes:
        experiment_name: Feature name -> name of the experiment; None if the feature has none.
        variant_name: Flag -> name of the variant; None if the exposure is not recorded.
        exposure_properties: Identifier and flag -> further properties of the event.
    """

    experiment_name: Callable[[str], str | None]
    variant_name: Callable[[Flag], str | None]
    exposure_properties: Callable[[str, Flag], Mapping[str, PropertyValue]]


class ExposureEncoder:
    """Encodes the exposures of one Mixpanel project. For one thread.

    Args:
        token: The token of the project.
        calls: Makes exposures and keeps the documents that they refer to.
        names: How experiments and variants are named.
        destination: Destination of the messages.
        report: Where each property that is left out is reported once.
    """

    def __init__(
        self, token: str, calls: Calls, names: ExposureNames, destination: Destination, report: Reporter
    ) -> None:
        self._calls, self._names, self._destination, self._report = calls, names, destination, report
        self._records = Records(token)
        self._known: tuple[int, Experiments] = 0, NOTHING_KNOWN  # of the document that was used last

    def encode(self, distinct_id: str, exposure: Exposure) -> Message | NotMirrored:
        """Return the message of an exposure, or why it is not recorded.

        Raises:
            OverflowError: Mixpanel does not take an event of this size.
        """
        identifier, number, flag, met_at = exposure
        if (reason := no_sample(flag, self._experiments(number))) is not None:
            return NotMirrored(reason)
        assert isinstance(flag, Flag)  # noqa: S101 - no_sample() gave no reason
        experiment = _named("experiment_name", self._names.experiment_name, flag.feature_name, NO_NAME)
        if isinstance(experiment, NotMirrored):
            return experiment
        variant = _named("variant_name", self._names.variant_name, flag, NO_VARIANT)
        if isinstance(variant, NotMirrored):
            return variant
        seconds = time() - (monotonic() - met_at)
        identity = distinct_id, experiment, variant
        properties = {
            **self._further_properties(identifier, flag),
            "time": int(seconds),
            "$insert_id": _digest(*identity, str(int(seconds // DAY_SECONDS))).hex(),
            "ip": 0,
            "$source": "flagsync",
            EXPERIMENT_NAME: experiment,
            VARIANT_NAME: variant,
        }
        body = self._records.track(distinct_id, EVENT, properties)
        if len(body) > MAX_MESSAGE_BYTES:
            raise OverflowError
        return Message(
            key=f"{distinct_id}\0{experiment}",
            fingerprint=_digest(*identity),
            body=body,
            evaluated_at=met_at,
            destination=self._destination,
            resend_after_seconds=RESEND_AFTER_SECONDS,
            replaces=False,
        )

    def _experiments(self, number: int) -> Experiments:
        """Return what the document of an exposure says of experiments, if it is known."""
        if number != self._known[0]:
            try:
                self._known = number, experiments_of(self._calls.document(number))
            except KeyError:  # the exposure waited so long that its document was forgotten
                return NOTHING_KNOWN
        return self._known[1]

    def _further_properties(self, identifier: object, flag: Flag) -> dict[str, PropertyValue]:
        try:
            returned: object = self._names.exposure_properties(identifier, flag)  # type: ignore[arg-type] # as passed
            given = {**returned} if isinstance(returned, Mapping) else None
        except BaseException as error:  # the application's callback may raise anything
            if is_interrupt_of_application(error):
                raise
            kind = f"exposure_properties raised {type(error).__name__}"
            self._report.warn_once(RAISED.format(described(error, f"{identifier}")), kind)
            return {}
        if given is None:
            self._report.warn_once(NO_MAPPING.format(type(returned).__name__))
            return {}
        found: dict[str, PropertyValue] = {}
        for name, value in given.items():
            try:
                if not isinstance(name, str):
                    fault = NO_TEXT
                elif name in OWN_NAMES or name.startswith(RESERVED_PREFIXES):
                    fault = RESERVED
                else:
                    found[name] = json.loads(json.dumps(value, allow_nan=False))
                    continue
            except BaseException as error:  # a value may be an object of the application
                if is_interrupt_of_application(error):
                    raise
                fault = f"Mixpanel cannot store its value ({type(error).__name__})"
            self._report.warn_once(LEFT_OUT.format(repr(name) if isinstance(name, str) else shown(name), fault))
        return found


def _named(option: str, function: Callable[[R], object], argument: R, missing: str) -> str | NotMirrored:
    """Return the text that a callback returns, shortened so that Mixpanel does not cut it."""
    try:
        name = function(argument)
        text = str.__str__(name).strip() if isinstance(name, str) else ""
    except BaseException as error:  # the application's callback may raise anything
        if is_interrupt_of_application(error):
            raise
        return NotMirrored(f"{option} raised {type(error).__name__}", f"{option} raised {described(error)}")
    if name is not None and not isinstance(name, str):
        return NotMirrored(f"{option} returned {type(name).__name__}, not text or None")
    if not text:
        return NotMirrored(missing)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return NotMirrored(f"{option} returned text that is not valid Unicode")
    return text if size <= MAX_STRING_BYTES else _shortened(text)


def _shortened(text: str) -> str:
    """Return the beginning of a text and a digest of the whole, so that different texts stay different."""
    digest = f" {_digest(text).hex()}"
    return text.encode()[: MAX_STRING_BYTES - len(digest)].decode(errors="ignore") + digest


def _digest(*texts: str) -> bytes:
    """Return 16 bytes that are equal for equal texts, in every process."""
    return blake2b(json.dumps(texts).encode(), digest_size=16).digest()
