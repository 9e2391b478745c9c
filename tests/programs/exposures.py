"""Records exposures of all users to some experiments, through an outbox that other processes share."""

import sys

from application import build
from flagsmith.models import Flag

_, outbox, users, experiments = sys.argv
with build(outbox=outbox, flush_interval_seconds=0.05) as client:
    for number in range(int(users)):
        for experiment in range(int(experiments)):
            flag = Flag(
                enabled=True, value="x", feature_id=1, feature_name=f"exp_{experiment}", variant="control"
            )
            client.track_exposure(f"user_{number}", flag)
    print(client.flush(60.0))
