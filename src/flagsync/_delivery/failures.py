"""Why a request got no reply: an outage, which ends by itself, or a configuration that cannot work.

Guarantee: no text contains credentials. The messages of ``requests`` and ``urllib3`` may quote URLs, so only their
types are named, beside what the operating system and OpenSSL say.
"""

import re
import ssl
from collections.abc import Iterator

from requests.exceptions import InvalidSchema, ProxyError, SSLError

from flagsync._delivery.answers import TEMPORARY, Misconfiguration

CA_BUNDLE = "the CA bundle (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE)"
PROXY = "the proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)"
CLIENT_ERRORS = range(400, 500)


def reason_of(error: Exception, *, is_unsent: bool) -> str | Misconfiguration:
    """Return why a request failed.

    Args:
        error: What ``requests`` raised.
        is_unsent: Whether nothing was connected, let alone sent.
    """
    causes = [*_causes(error)]
    if is_unsent and isinstance(error, OSError | ValueError):  # all exceptions of requests are OSErrors
        return Misconfiguration(_before_connecting(error, causes))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls and (wrong := _wrong_tls(tls, is_of_proxy=isinstance(error, ProxyError))):
        return Misconfiguration(wrong)
    root = causes[-1]
    if isinstance(error, SSLError) and not isinstance(root, ssl.SSLError | ConnectionError | TimeoutError):
        return Misconfiguration(_wrong_certificates(root))
    if tunnel := re.search(r"Tunnel connection failed: (\d{3})", f"{root}"):
        return _refused_by_proxy(int(tunnel[1]))
    return ": ".join(filter(None, (type(error).__name__, _text(root))))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, its cause, and so on. Some of urllib3's have their cause only as an argument."""
    while error is not None:
        yield error
        inside = (argument for argument in error.args if isinstance(argument, BaseException))
        error = error.__cause__ or next(inside, None) or error.__context__


def _before_connecting(error: Exception, causes: list[BaseException]) -> str:
    if type(error) is OSError:  # requests 2.34 itself checks that the file exists
        return f"{error}; check {CA_BUNDLE}"
    if isinstance(error, InvalidSchema) and "SOCKS" in f"{error}":
        return f"a SOCKS proxy needs PySocks: pip install 'requests[socks]'; check {PROXY}"
    names = ": ".join(dict.fromkeys(type(cause).__name__ for cause in causes[:2]))
    return f"no request can be made, {names}; check the URL, and {PROXY}"


def _wrong_tls(error: ssl.SSLError, *, is_of_proxy: bool) -> str | None:
    """Return what a person must fix; None if only the connection broke."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate cannot be verified: {error.verify_message}; check {CA_BUNDLE}"
    if error.reason == "WRONG_VERSION_NUMBER" and is_of_proxy:
        return f"the proxy does not use TLS, so its URL must begin with http://; check {PROXY}"
    if error.library not in (None, "SSL"):  # X509, PEM: what was read from a file
        return f"the CA bundle cannot be read: {_text(error)}; check {CA_BUNDLE}"
    return None


def _wrong_certificates(root: BaseException) -> str:
    is_file = isinstance(root, OSError)  # else a host name does not match, which urllib3 1.26 checks itself
    wrong = f"CA bundle cannot be read: {_text(root)}" if is_file else f"certificate cannot be verified: {root}"
    return f"the {wrong}; check {CA_BUNDLE}"


def _refused_by_proxy(status: int) -> str | Misconfiguration:
    text = f"the proxy answers HTTP {status}"
    is_final = status in CLIENT_ERRORS and status not in TEMPORARY
    return Misconfiguration(f"{text}; check {PROXY}") if is_final else text


def _text(cause: BaseException) -> str:
    """Return what the operating system or OpenSSL says."""
    text = cause.strerror if isinstance(cause, OSError) else None
    return re.sub(r" \(_ssl\.c:\d+\)$", "", text or "")
