"""As ``served``, with an application that closes on SIGTERM."""

import served

from flagsync import close_on_sigterm

app = served.app
close_on_sigterm()
