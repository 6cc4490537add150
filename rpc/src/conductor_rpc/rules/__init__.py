"""Rules of fields: one table per message, declared here by domain, checked by the small engine.

``violations(message)`` tells every field that breaks its rule; ``validate(message)`` raises. A message without a table
has no rules. Fields that are absent are checked only for being required. ``require_bounds(bytes, message)`` holds what
is large to its longest lists before it is decoded.
"""

from __future__ import annotations

from conductor_rpc.rules import builds, events, inference, models, predictions, testing
from conductor_rpc.rules.engine import TABLES, declare, validate, violations
from conductor_rpc.rules.undecoded import require_bounds

__all__ = ["TABLES", "require_bounds", "validate", "violations"]

for _domain in (builds, events, inference, models, predictions, testing):
    declare(_domain.TABLES, _domain.TOGETHER)
