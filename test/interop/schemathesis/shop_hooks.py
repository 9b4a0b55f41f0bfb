"""Leads schemathesis' requests into the shop, and counts the answers.

The OpenAPI document cannot know a project's categories, types and fields, so that hardly a
generated request would get beyond "unknown category". Most of those that are valid by the document
are therefore given a category, a few ids that meet again, and types with data.
"""

import atexit
import collections
import json
import os
import random

import schemathesis
from schemathesis.generation import GenerationMode

choose = random.Random(os.environ["SHOP_SEED"])
IDS = ["a", "b", "c/d é?"]
EXPECTED = ["any", "none", "exists", 1, "2", 7]
EVENTS = [
    ("invoice.Issued", {"customer": "c-7", "total": 12900, "dueAt": "2026-12-31T00:00:00Z"}),
    ("invoice.Paid", {"amount": 12900}),
    ("invoice.Paid", {"amount": 12900, "method": "card", "reference": "r"}),
    ("invoice.Paid", {"amount": "much"}),
]
COMMANDS = [
    ("order.Place", {"customer": "c-7", "totalCents": 12900}),
    ("order.Place", {"customer": "c-7", "totalCents": 0}),
    ("order.Cancel", {"reason": "late"}),
]
UNASKED = " though it could take its time"
answers = collections.Counter()


def lead(typed, choices):
    if isinstance(typed, dict):
        typed["type"], typed["data"] = choose.choice(choices)


def lead_events(request):
    if isinstance(request, dict) and isinstance(request.get("events"), list):
        request["expectedVersion"] = choose.choice(EXPECTED)
        for event in request["events"]:
            lead(event, EVENTS)


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is not None and case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if case.query and "wait" in case.query:
        case.query["wait"] = "50ms"  # some are for 25 seconds
    if choose.random() < 0.25:
        return
    if case.path_parameters:
        decided = "commands" in case.path or case.path.endswith("/state")
        case.path_parameters["category"] = "order" if decided else "invoice"
        case.path_parameters["id"] = choose.choice(IDS)
    if case.path == "/v1/subscribe":
        case.query = {"category": "invoice", "from": "start"}  # else it would wait for what nobody appends
    if not isinstance(case.body, dict):
        return
    if isinstance(case.body.get("requests"), list):
        for request in case.body["requests"]:
            if isinstance(request, dict):
                request["category"], request["id"] = "invoice", choose.choice(IDS)
            lead_events(request)
    elif "/commands/" in case.path:
        lead(case.body, COMMANDS)
    elif choose.random() < 0.25:
        again(case)
    else:
        lead_events(case.body)


def again(case):
    """One of a few requests, each of which comes more than once and must count once."""
    which = choose.randrange(len(IDS))
    case.path_parameters["id"] = IDS[which]
    case.headers["Idempotency-Key"] = f"again-{which}"
    event, data = EVENTS[which]
    case.body = {"expectedVersion": "any", "events": [{"type": event, "data": data}]}


@schemathesis.hook
def after_call(context, case, response):
    answer = f"{case.method} {case.path} {response.status_code}"
    if response.status_code == 503:  # tell a wait that was too short from a server that is ill
        problem = json.loads(response.content)
        answer += f" {problem['code']}"
        if problem["code"] == "unknown" and "timeout" not in (case.query or {}):
            answer += UNASKED
    answers[answer] += 1


@atexit.register
def report():
    with open(os.environ["SHOP_ANSWERS"], "w") as out:
        json.dump(answers, out)
