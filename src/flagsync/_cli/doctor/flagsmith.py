"""Checks of the key, the environment document and its flags. Each returns None if there is nothing to check."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from flagsync._cli.doctor.check import Check, fine, wrong
from flagsync._cli.doctor.facts import Facts
from flagsync._cli.terminal import age, count, masked
from flagsync._clock import time
from flagsync._encoding.division import divide
from flagsync._encoding.document import digest_of
from flagsync._encoding.properties import Properties, served_value

SWITCH_OFF = (
    "switch Flagsmith's own Mixpanel integration off, which is not seen from here, and let all that write to the same "
    "profiles evaluate in the same mode; this result stays as long as these settings do"
)


def key(facts: Facts) -> Check | None:
    """Check which kind of key there is, and whether it can do what is asked of it."""
    if not facts.key:
        return None
    kind = "server-side" if facts.has_server_key else "client-side"
    mode = "local" if facts.is_local else "remote"
    detail = f"{kind} key {masked(facts.key)}, {mode} evaluation"
    if facts.is_local and not facts.has_server_key:
        return wrong("flagsmith_key", detail, "local evaluation needs a server-side key ('ser.…')")
    return fine("flagsmith_key", detail)


def document(facts: Facts) -> Check | None:
    """Check whether Flagsmith has answered, and how old the environment document is."""
    if (fetched := facts.fetched) is None:
        return None
    if fetched.fault:
        return wrong("environment_document", f"{fetched.fault}, from {fetched.where}", fetched.remedy)
    if fetched.document is None:
        seen = count(fetched.flags or 0, "flag")
        return fine(
            "environment_document", f"{seen} from {fetched.where}; only a server-side key gets the document"
        )
    return fine("environment_document", f"{_changed(fetched.document)}, from {fetched.where}")


def features(facts: Facts) -> Check | None:
    """Count the features, and those that can differ between identities."""
    if facts.fetched is None or (context := facts.fetched.context) is None:
        return None
    parts = divide(context, digest_of(context, _go_on), _go_on)
    by_traits, by_identity = (len(part.get("features") or ()) for part in (parts.by_traits, parts.by_identity))
    differing = by_traits + len(parts.splits) + by_identity
    detail = (
        f"{count(len(parts.features), 'feature')}; {differing} can differ between identities, "
        f"{by_traits} of them by traits alone"
    )
    remedy = "" if parts.features else "create a feature in this environment, or use the key of another one"
    return Check("features", bool(parts.features), detail, remedy)


def flapping(facts: Facts) -> Check | None:
    """Look for settings under which local evaluation and Flagsmith's server disagree about the same identity."""
    if facts.fetched is None or facts.fetched.document is None:
        return None
    if not facts.is_local:
        return fine("flapping", "this process evaluates remotely, and so as Flagsmith's server does")
    causes = [*_causes(facts.fetched.document, has_client_key=bool(facts.key) and not facts.has_server_key)]
    if not causes:
        return fine("flapping", "nothing makes local evaluation and Flagsmith's server disagree")
    detail = f"profiles that Flagsmith's server writes, too, change back and forth: {'; '.join(causes)}"
    return wrong("flapping", detail, SWITCH_OFF)


def properties(facts: Facts) -> Check | None:
    """Check the limits of Mixpanel: how many properties, and which names."""
    if facts.fetched is None or (context := facts.fetched.context) is None:
        return None
    problems, names = list[str](), [*(context.get("features") or ())]
    checked = Properties(str, served_value, problems.append)
    checked.declare(names)
    checked.check_count(len(names))
    if not problems:
        return fine("properties", f"{count(len(names), 'name')} within Mixpanel's limits")
    return wrong("properties", "; ".join(problems), "give other names with property_name, or rename features")


def _causes(document: Mapping[str, Any], *, has_client_key: bool) -> Iterator[str]:
    project = document.get("project") or {}
    hides = document.get("hide_disabled_flags")
    if project.get("hide_disabled_flags") if hides is None else hides:
        yield "hide_disabled_flags is on, so the server leaves disabled flags out"
    if document.get("use_identity_composite_key_for_hashing") is False:
        yield "use_identity_composite_key_for_hashing is off, so variants differ"
    if document.get("use_identity_overrides_in_local_eval") is False:
        yield "use_identity_overrides_in_local_eval is off, so overrides of identities count on the server only"
    weighted = [
        state
        for identity in document.get("identity_overrides") or ()
        for state in identity.get("identity_features") or ()
        if state.get("multivariate_feature_state_values")
    ]
    if weighted:
        yield f"{count(len(weighted), 'identity override')} of a multivariate feature by weight"
    if has_client_key and project.get("server_key_only_feature_ids"):
        yield "a client-side key does not see the features for server-side keys only"


def _changed(document: Mapping[str, Any]) -> str:
    """Say how long ago a document was changed."""
    try:
        at = datetime.fromisoformat(f"{document.get('updated_at')}")
    except ValueError:
        return "a document without the time of its last change"
    seconds = time() - (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return f"last changed {age(max(0.0, seconds))} ago"


def _go_on() -> None:
    """Rest not at all: nobody else needs this process."""
