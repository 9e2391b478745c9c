"""Evaluates in greenlets, and once more at the end."""

from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

from application import build  # noqa: E402
from gevent.pool import Pool  # type: ignore[import-untyped]  # noqa: E402

client = build()
Pool().map(client.get_identity_flags, [f"user_{number}" for number in range(20)])
# gevent resolves names in native threads, which Python 3.12 does not start at exit: here is its first.
print(client.flush())
client.get_identity_flags("last")
