"""Whether a Redis has been filled with a view's rows: what tells "there is no such row" from "not yet here".

A Redis that was restarted is empty, and for a while holds some views and not others. Whoever fills it keeps a position
per view in it, which is lost with the rows; a row that is absent beside it really does not exist.
"""

from __future__ import annotations

from uuid import uuid4

from conductor_features.views import View

_REPLAYING = b"replaying "
_WITH_LISTS = "+lists"


def position_key(view_key: str, node_tag: bytes | None = None) -> bytes:
    """Redis key of a view's position: up to where its log has been carried into this Redis; absent in an empty one.

    In a Redis Cluster each node has one, by a hash tag that lies there.
    """
    key = b"conductor:tail:" + view_key.encode()
    return key if node_tag is None else b"%b:{%b}" % (key, node_tag)


def replaying_mark() -> bytes:
    """What stands in the position's place while the view is being filled; no two are alike."""
    return _REPLAYING + str(uuid4()).encode()


def epoch_of(view: View, epoch: str) -> str:
    """How a view's position begins. A listed view's tells that its lists were written too: older writers wrote none."""
    return epoch + _WITH_LISTS if view.listed_by else epoch


def is_listed(position: bytes | None) -> bool:
    """Whether a position says that every entity's row is there, and in its list."""
    return position is not None and position.partition(b" ")[0].endswith(_WITH_LISTS.encode())


def is_filled(position: bytes | None) -> bool:
    """Whether a position says that every entity's row is there."""
    return position is not None and not position.startswith(_REPLAYING)
