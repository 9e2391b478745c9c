"""What must hold for the Flagsmith client, or the key, that a client wraps."""

from collections.abc import Mapping

from flagsync._rules import is_deferred, key_fault, shown

CLIENT = (
    "flagsmith must be a configured client, such as "
    "Flagsmith(environment_key=os.environ['FLAGSMITH_ENVIRONMENT_KEY']), or an environment key"
)
DELETIONS_UNKNOWN = (
    "unset_deleted needs a client with enable_local_evaluation=True and without offline_handler, since only an "
    "environment document from Flagsmith's API tells which features were deleted"
)


def client_rules(flagsmith: object, wrapper: type, *, unset_deleted: bool) -> dict[str, bool]:
    """Return what must hold: a sentence for each rule, and whether it does.

    Args:
        flagsmith: The client or key.
        wrapper: ``FlagSync``, which wraps such a client itself.
        unset_deleted: Whether the properties of deleted features are to be removed.
    """
    fault = _fault(flagsmith, wrapper)
    knows = bool(fault) or unset_deleted is not True or _knows_deletions(flagsmith)
    return {f"{CLIENT}, not {fault}": not fault, DELETIONS_UNKNOWN: knows}


def _fault(flagsmith: object, wrapper: type) -> str:
    """Return why a client or key of Flagsmith cannot be used; empty if nothing is known against it.

    Args:
        flagsmith: The client or key.
        wrapper: ``FlagSync``, which wraps such a client itself.
    """
    if isinstance(flagsmith, str):
        return key_fault(flagsmith)
    if isinstance(flagsmith, wrapper):
        return f"a {wrapper.__name__}, which already mirrors: use it as it is, or pass its flagsmith"
    evaluate = getattr(flagsmith, "get_identity_flags", None)
    if not callable(evaluate) or isinstance(flagsmith, type):
        return shown(flagsmith)
    if is_deferred(evaluate):
        return "an async client: evaluate with it, and pass the result to mirror()"
    headers = getattr(getattr(flagsmith, "session", None), "headers", {})  # there is no session in offline mode
    key = headers.get("X-Environment-Key") if isinstance(headers, Mapping) else None
    return "a client with a placeholder for a key" if isinstance(key, str) and key_fault(key) else ""


def _knows_deletions(flagsmith: object) -> bool:
    """Return whether a client of Flagsmith, or a key, tells which features exist: that of a document from the API."""
    is_local = getattr(flagsmith, "enable_local_evaluation", False)
    return bool(is_local) and getattr(flagsmith, "offline_handler", None) is None
