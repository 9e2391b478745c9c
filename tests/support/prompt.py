"""A client that does soon what others do after seconds."""

from flagsync import FlagSync
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning

SOON = Backoff(first_seconds=0.01, max_seconds=0.01, jitter=(0.0, 0.0))


class PromptFlagSync(FlagSync):
    """Tries again at once what Mixpanel has not accepted."""

    _tuning = Tuning(sending=Sending(backoff=SOON))
