"""An A/B test from the split to the result: 2,000 simulated customers, without an account or a network.

Flagsmith evaluates offline, in the environment of shop.json with one more segment: half of the customers. Mixpanel is a
server on loopback, and the tables are computed from what it received.
"""

from collections.abc import Set as AbstractSet
from math import exp, sqrt
from pathlib import Path
from random import Random
from typing import Any

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler
from mixpanel import BufferedConsumer, Mixpanel

from flagsync import FlagSync
from flagsync.testing import MixpanelServer

Users = AbstractSet[str]

CUSTOMERS = [f"customer_{number}" for number in range(2000)]
# Experiment -> variant -> the share of the customers whom Flagsmith gives it. The control group comes first.
EXPERIMENTS = {
    "product_page": {"control": 0.3, "gallery": 0.4, "video": 0.3},
    "express_delivery": {"false": 0.5, "next day": 0.5},
}
# How likely a customer is to order, and by how much a variant changes that: this is what the experiments should find.
LIKELY, EFFECTS = 0.2, {"video": 0.06, "express delivery": 0.05}
MAX_DEVIATIONS = 3.0
HEADER = ("variant", "users", "expected", "buyers", "rate", "lift", "95 % interval")


def main() -> None:
    """Let every customer visit the shop, and print what Mixpanel knows afterwards."""
    with (
        MixpanelServer() as mixpanel,
        FlagSync(offline_flagsmith(), "any-token", mixpanel_url=mixpanel.url) as client,
    ):
        consumer = BufferedConsumer(events_url=f"{mixpanel.url}/track")
        visit(client, Mixpanel("any-token", consumer=consumer))
        consumer.flush()
        client.flush()
        for experiment in EXPERIMENTS:
            show(experiment, mixpanel)
        exposures = client.stats().exposures
        print(
            f"{exposures.accepted:,} exposures, {exposures.delivered:,} events in Mixpanel: "
            "one for each user and experiment."
        )


def offline_flagsmith() -> Flagsmith:
    """Return a client whose flag express_delivery a segment switches on for half of the customers."""
    handler = LocalFileHandler(str(Path(__file__).with_name("shop.json")))
    document: Any = handler.environment_document
    [state] = [one for one in document["feature_states"] if one["feature"]["name"] == "express_delivery"]
    condition = {"operator": "PERCENTAGE_SPLIT", "value": "50", "property_": ""}
    rules = [
        {"type": "ALL", "conditions": [], "rules": [{"type": "ANY", "rules": [], "conditions": [condition]}]}
    ]
    override = {**state, "enabled": True, "django_id": 105, "feature_segment": {"priority": 0}}
    segment = {"id": 2, "name": "half of the customers", "rules": rules, "feature_states": [override]}
    document["project"]["segments"].append(segment)
    return Flagsmith(offline_mode=True, offline_handler=handler)


def visit(client: FlagSync, tracker: Mixpanel) -> None:
    """Let each customer look at a product twice and perhaps order it. Mixpanel's own SDK tracks the orders."""
    random = Random(2026)  # the same simulation each time
    for customer in CUSTOMERS:
        for _ in range(2):
            page = client.get_experiment_flag("product_page", customer)
            delivery = client.get_experiment_flag("express_delivery", customer)
        # A shop would now show the page that page.value names, and offer express delivery if delivery.enabled.
        likely = LIKELY + EFFECTS.get(f"{page.value}", 0) + EFFECTS["express delivery"] * delivery.enabled
        if random.random() < likely:
            tracker.track(customer, "Order completed")


def show(experiment: str, mixpanel: MixpanelServer) -> None:
    """Print a line for each variant of an experiment."""
    orders = [event for event in mixpanel.events if event["event"] == "Order completed"]
    buyers = {event["properties"]["distinct_id"] for event in orders}
    groups, shares = mixpanel.experiments[experiment], EXPERIMENTS[experiment]
    met = sum(map(len, groups.values()))
    print(f"{experiment}\n\n{row(*HEADER)}")
    control = groups[next(iter(shares))]
    for variant, share in shares.items():
        users = groups[variant]
        compared = ("", "") if users is control else lift(users & buyers, users, control & buyers, control)
        bought = f"{len(users & buyers)}", f"{len(users & buyers) / len(users):.1%}"
        print(row(variant, f"{len(users)}", f"{share * met:.0f}", *bought, *compared))
    # With a correct split, 3 of 1,000 groups are off by more than three standard deviations.
    off = [
        abs(len(groups[one]) - share * met) / sqrt(met * share * (1 - share)) for one, share in shares.items()
    ]
    verdict = "as expected" if max(off) <= MAX_DEVIATIONS else "WRONG, so do not trust the result"
    print(f"\n  The sizes of the groups are {verdict}.\n")


def lift(buyers: Users, users: Users, control_buyers: Users, control: Users) -> tuple[str, str]:
    """Return how much higher a variant's rate is than that of the control group, and the 95 % interval."""
    ratio = len(buyers) / len(users) / (len(control_buyers) / len(control))
    # The logarithm of the ratio of two rates has about a normal distribution, with this standard error.
    error = sqrt(1 / len(buyers) - 1 / len(users) + 1 / len(control_buyers) - 1 / len(control))
    low, high = (ratio * exp(times * error) - 1 for times in (-1.96, 1.96))
    return f"{ratio - 1:+.1%}", f"{low:+.1%} to {high:+.1%}"


def row(*cells: str) -> str:
    """Return a line of the table."""
    first, *others, last = cells
    return f"  {first:10}{''.join(f'{cell:>10}' for cell in others)}    {last}".rstrip()


if __name__ == "__main__":
    main()
