"""Calls that were handed over and whose messages have not come.

Whether one waits for a busy event loop or for its caller, who may never send anything, can't be told by looking at it.
But messages that are there are read in the order of their calls. So a call that is overtaken, by the message of one
that was handed over later, waits for its caller; and for us it waited no longer than the one that overtook it.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from conductor_rpc.call import HANDED_TIME


class HandedCall:
    """One call."""

    __slots__ = ("longest_wait", "time")

    def __init__(self, moment: float) -> None:
        self.time = moment
        self.longest_wait = math.inf
        """What it can have waited for us, in seconds."""


class HandedCalls:
    """Those that nobody has overtaken."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` tells the time in seconds."""
        self._clock = clock
        self._waiting: OrderedDict[HandedCall, None] = OrderedDict()
        self.overtaken: Callable[[], None] = lambda: None
        """Called when there are fewer because some were overtaken."""

    def __len__(self) -> int:
        return len(self._waiting)

    def handed(self) -> HandedCall:
        """One more."""
        call = HandedCall(self._clock())
        self._waiting[call] = None
        return call

    def reading(self, call: HandedCall, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler for this call alone, that notes when its message comes: in the call's own task."""

        def read(deserialize: Callable[[bytes], Any], content: bytes) -> Any:
            HANDED_TIME.set(self.came(call))
            return deserialize(content)

        return handler._replace(request_deserializer=partial(read, handler.request_deserializer))  # type: ignore[no-any-return]

    def came(self, call: HandedCall) -> float:
        """Its message has come.

        Returns:
            Since when it has waited for us, on the clock.
        """
        now = self._clock()
        if call in self._waiting:
            count = len(self._waiting)
            while (first := next(iter(self._waiting))) is not call:
                first.longest_wait = now - call.time
                del self._waiting[first]
            del self._waiting[call]
            if count - len(self._waiting) > 1:
                self.overtaken()
        return max(call.time, now - call.longest_wait)

    def left(self, call: HandedCall) -> None:
        """It has ended, whether its message came or not."""
        self._waiting.pop(call, None)
