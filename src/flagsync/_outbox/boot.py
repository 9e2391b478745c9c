"""Tells whose monotonic clocks agree."""

from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path


@cache
def boot_number() -> int:
    """Return a number that changes when the machine boots; 0 where the system does not tell."""
    with suppress(OSError):  # Linux
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        return int.from_bytes(blake2b(boot, digest_size=6).digest())
    return 0
