"""An identity and its flags -> the message that sets the properties of its profile.

Guarantee: a message holds all of the identity's flags, or there is no message but a reason. Flags that are the same for
every identity are evaluated and encoded once per document. Boundary: does no I/O.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from marshal import dumps
from struct import Struct
from time import perf_counter

from flagsmith.models import Flag

from flagsync._encoding.calls import EXACT_FORMAT, Call, Calls, identity_of
from flagsync._encoding.deletions import Deletions
from flagsync._encoding.distinct_id import NotMirrored, distinct_id_of
from flagsync._encoding.division import divide
from flagsync._encoding.document import MAX_TRAITS_BYTES, Document, digest_of
from flagsync._encoding.envelope import Envelope
from flagsync._encoding.evaluation import Context, Identity
from flagsync._encoding.pacer import Pacer
from flagsync._encoding.properties import Properties, PropertyValue, served_value
from flagsync._outbox.contract import MAX_MESSAGE_BYTES, Destination, Message
from flagsync._recent import Recent
from flagsync._report import Reporter

NO_DOCUMENT = Document(
    digest=b"", features=(), constant=(), traits=(), by_traits={}, splits=(), by_identity={}, whole={}
)
EVALUATION = Struct(">q")
MAX_REMEMBERED_TRAITS = 1000  # combinations of values, per document


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """How identities and flags are named in Mixpanel.

    Attributes:
        distinct_id: Identifier -> ``distinct_id``; None if the identity is not mirrored.
        property_name: Feature name -> property name; None if the flag is left out.
        property_value: Flag -> property value.
    """

    distinct_id: Callable[[str], str | None]
    property_name: Callable[[str], str | None]
    property_value: Callable[[Flag], PropertyValue]


class ProfileEncoder:
    """Encodes the profiles of one Mixpanel project. For one thread.

    Args:
        token: The token of the project.
        calls: Makes calls and keeps the documents that they refer to.
        mapping: How identities and flags are named.
        destination: Destination of the messages.
        resend_after_seconds: When an equal message is sent again.
        pacer: Lets the thread rest between pieces of work.
        report: Where each flag that is left out or cut, and white space around identifiers, is reported once.
        deletions: Knows which properties to remove; None removes none.

    Attributes:
        calls: Makes the calls, in any thread.
        destination: Destination of the messages.
    """

    def __init__(
        self,
        token: str,
        calls: Calls,
        mapping: Mapping,
        destination: Destination,
        *,
        resend_after_seconds: float,
        pacer: Pacer,
        report: Reporter,
        deletions: Deletions | None = None,
    ) -> None:
        self.destination, self._resend_after_seconds = destination, resend_after_seconds
        self.calls, self._mapping, self._pacer, self._report = calls, mapping, pacer, report
        self._envelope, self._deletions = Envelope(token), deletions
        self._properties = Properties(mapping.property_name, mapping.property_value, report.warn_once)
        self._templates: dict[int, _Template] = {}  # by the number of the document
        self._no_template = self._new_template(NO_DOCUMENT)
        self._evaluation_seconds = 0.0  # how long the last one took, without a pause

    def look_for_deletions(self) -> None:
        """Look again at the documents, if features may have been absent from them for long enough by now."""
        if self._deletions is not None and self._deletions.is_due():
            self._templates.clear()

    def distinct_id(self, identifier: object) -> str | NotMirrored:
        """Return the profile of an identifier."""
        return distinct_id_of(identifier, self._mapping.distinct_id, self._report.warn_once)

    def evaluation_key(self, call: Call) -> int | None:
        """Return a number that is equal for calls which must have the same result; None if unknown.

        It is the same in every process: a digest of the document, the names of properties, the identifier and the
        traits. Traits count by name, value and type, since ``True`` and ``1`` match different segments.
        """
        identifier, number, traits, _ = call
        if not isinstance(traits, bytes):
            return None
        try:
            key = self._template(number).key.copy()
            key.update(dumps(identifier, EXACT_FORMAT) + traits)  # type: ignore[arg-type] # or a ValueError
        except ValueError:
            return None  # an identifier of the application's own type
        (evaluation,) = EVALUATION.unpack(key.digest())
        return evaluation  # type: ignore[no-any-return] # it is an int

    def encode(self, distinct_id: str, call: Call, key: int | None) -> Message | NotMirrored:
        """Return the message that sets all properties of a profile.

        Raises:
            OverflowError: The record is larger than Mixpanel accepts.
            Exception: What Flagsmith's engine raises.
        """
        evaluated_at = call[-1]
        template = self._template(call[1]) if call[1] else self._no_template
        self._pacer.pause(self._evaluation_seconds)
        began = perf_counter()
        members = self._members(template, call)
        self._evaluation_seconds = perf_counter() - began
        self._pacer.pause()
        if not (template.count or members):
            return NotMirrored("no flag has a property name")
        self._properties.check_count(template.count + len(members))
        varying = ",".join((*members, "") if members and template.count else members)
        body, tail = self._envelope.people_set(distinct_id, varying, template.unset), template.tail
        if len(body) + len(tail) > MAX_MESSAGE_BYTES:
            raise OverflowError
        fingerprint = template.fingerprint.copy()
        fingerprint.update(varying.encode())
        where, resend = self.destination, self._resend_after_seconds
        return Message(distinct_id, fingerprint.digest(), body, evaluated_at, where, resend, key, tail)

    def _members(self, template: "_Template", call: Call) -> list[str]:
        """Return the properties of a call that are not the same for every identity, as members of a JSON object."""
        identifier, number, evaluated, _ = call
        document, members = template.document, self._properties.members
        if not number:
            return members(evaluated.flags.values())  # type: ignore[union-attr] # they are Flags
        if not isinstance(evaluated, bytes):
            return members(document.evaluate_whole(evaluated))  # type: ignore[arg-type] # it is an identity
        identity = identity_of(identifier, evaluated)
        if len(evaluated) > MAX_TRAITS_BYTES:
            return members(document.evaluate_whole(identity))
        shared = self._members_by_traits(template, identity) if document.by_traits["features"] else ()
        split = self._members_of_splits(template, identity) if document.splits else ()
        return [*shared, *split, *members(document.evaluate_by_identity(identity))]

    def _members_by_traits(self, template: "_Template", identity: Identity) -> tuple[str, ...]:
        key = template.document.traits_key(identity)
        if (members := template.by_traits.get(key)) is None:
            members = tuple(self._properties.members(template.document.evaluate_by_traits(identity)))
            template.by_traits[key] = members
        return members

    def _members_of_splits(self, template: "_Template", identity: Identity) -> list[str]:
        found: list[str] = []
        key = template.document.identity_key(identity["identifier"]).encode()
        for split, known in template.splits:
            variant = split.variant_of(key)
            if (members := known.get(variant)) is None:
                flags = template.document.evaluate_split(split, identity)
                members = known[variant] = tuple(self._properties.members(flags))
            found += members
        return found

    def _template(self, number: int) -> "_Template":
        if (template := self._templates.get(number)) is None:
            context = self.calls.document(number)
            digest = digest_of(context, self._pacer.pause)
            same = (one for one in self._templates.values() if one.document.digest == digest)
            template = next(same, None) or self._new_template(self._divide(context, digest))
            known = {old: one for old, one in self._templates.items() if self.calls.has_document(old)}
            self._templates = {**known, number: template}
        return template

    def _divide(self, context: Context, digest: bytes) -> Document:
        # The application's own property_value must be called for each identity.
        may_share = self._mapping.property_value is served_value
        return divide(context, digest, self._pacer.pause, may_share=may_share)

    def _new_template(self, document: Document) -> "_Template":
        names = self._properties.declare(document.features)
        members = self._properties.members(document.constant)
        constant = ",".join(members)
        unset: tuple[str, ...] = ()
        if self._deletions is not None and document.features:
            unset = self._deletions.of(document.whole, self._properties.names(document.features))
        return _Template(document, constant, self._envelope.end(constant), len(members), names, unset=unset)


class _Template:
    """The part of a record that all profiles share under one document.

    Args:
        document: The document.
        constant: The properties that are the same for every identity, as members of a JSON object.
        tail: The end of every record, with these properties.
        count: How many properties these are.
        names: The names of all properties.
        unset: The names of properties that every record removes.

    Attributes:
        by_traits: The properties that are the same for equal traits.
        splits: The properties that are the same for all identities with the same variant, by its number.
    """

    def __init__(
        self, document: Document, constant: str, tail: bytes, count: int, names: str, *, unset: tuple[str, ...]
    ) -> None:
        self.document, self.tail, self.count, self.unset = document, tail, count, unset
        self.fingerprint = blake2b("\0".join((constant, *unset)).encode(errors="surrogatepass"), digest_size=16)
        self.key = blake2b(document.digest + self.fingerprint.digest() + names.encode(), digest_size=8)
        self.by_traits = Recent[bytes, tuple[str, ...]](MAX_REMEMBERED_TRAITS)
        self.splits = [(split, dict[int, tuple[str, ...]]()) for split in document.splits]
