"""Evaluates locally for each identifier that it reads; says what it served once Mixpanel has it.

Flagsmith is where the first argument says, the second names the store of cohorts.
"""

import sys

from application import build
from flagsmith import Flagsmith
from stores import open_store

_, api_url, cohorts = sys.argv
flagsmith = Flagsmith("ser.key", api_url, enable_local_evaluation=True)
with open_store(cohorts) as store, build(flagsmith, cohorts=store) as client:
    for line in sys.stdin:
        flags = client.get_identity_flags(line.strip())
        print(client.flush() and flags.get_feature_value("seg_override"), flush=True)
