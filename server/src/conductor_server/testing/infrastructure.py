"""What failures say when something around the test gave way: rules over their messages.

Odds are judgement, not learnt: no history tells which failures were the infrastructure's. A rule's odds say how many
times likelier such a message is from a failure of the infrastructure than from any other one. docs/flaky-tests.md lists
them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_MESSAGE = 10_000
"""Characters that are looked at."""


@dataclass(frozen=True)
class Rule:
    """What a message may say. Patterns are of lower case, and hold no repetition without a small bound: the time that
    they take grows with the message and no faster."""

    id: str
    says: str
    """For people: what such a message speaks of."""
    odds: float
    pattern: re.Pattern[str]


def _rule(name: str, says: str, odds: float, *alternatives: str) -> Rule:
    return Rule(name, says, odds, re.compile("|".join(alternatives)))


RULES = (
    _rule(
        "runner-lost", "a runner that went away", 400,
        r"lost (?:communication|connection) (?:with|to) (?:the )?(?:server|runner|agent|node|worker)",
        r"runner (?:has received a shutdown|was lost|was terminated|went offline|system failure)",
        r"agent (?:was lost|was terminated|went offline|disconnected)",
        r"node (?:was lost|was terminated|was preempted|went offline)",
        r"pod (?:was )?evicted", r"instance was preempted",
    ),
    _rule(
        "disk-full", "a disk that is full or can't be written to", 200,
        r"no space left on device", r"\benospc\b", r"disk quota exceeded", r"read-only file system", r"disk is full",
    ),
    _rule(
        "name-resolution", "a host's name that was not resolved", 150,
        r"temporary failure in name resolution", r"name or service not known", r"could not resolve host",
        r"nodename nor servname", r"getaddrinfo (?:failed|enotfound|eai_again)",
        r"unknownhostexception", r"no such host",
    ),
    _rule(
        "package-registry", "a registry that did not deliver", 150,
        r"(?:pypi|registry|npmjs|maven|docker|artifactory|nexus|crates|rubygems)[^\n]{0,60}\b(?:429|50[0234])\b",
        r"imagepullbackoff", r"errimagepull", r"failed to pull image", r"toomanyrequests: ",
    ),
    _rule(
        "out-of-memory", "memory that ran out", 100,
        r"out of memory", r"cannot allocate memory", r"\boom[- ]?kill", r"outofmemoryerror",
        r"exit(?:ed)?(?: with)?(?: code| status)?:? ?137\b",
    ),
    _rule(
        "connection", "a connection that was refused or broken off", 50,
        r"connection (?:was )?(?:refused|reset|aborted)", r"\beconn(?:refused|reset|aborted)\b",
        r"connectionreseterror",
        r"connectionrefusederror", r"no route to host", r"network is unreachable", r"remote end closed connection",
    ),
    _rule(
        "remote-timeout", "another host that did not answer in time", 30,
        r"(?:connect|connection|connecting|read|socket|handshake|gateway|dial)[ _-]?(?:timed out|time-?out)",
        r"\betimedout\b", r"i/o timeout", r"dial tcp[^\n]{0,60}timeout",
    ),
    _rule(
        "resource-limit", "a limit of the machine", 40,
        r"too many open files", r"resource temporarily unavailable", r"\bemfile\b", r"can't start new thread",
    ),
    _rule(
        "device", "a device or file that could not be used", 20,
        r"permission denied", r"operation not permitted", r"device or resource busy", r"no such device",
        r"input/output error", r"cannot open display",
    ),
)  # fmt: skip
"""The most telling of those that match counts: the others often say the same once more."""


def matching(message: str) -> list[Rule]:
    """Rules that a message meets, most telling first."""
    text = message[:LONGEST_MESSAGE].lower()
    return sorted((rule for rule in RULES if rule.pattern.search(text)), key=lambda rule: -rule.odds)
