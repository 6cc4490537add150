"""Becomes another program that ends with its parent: ``leash.py PARENT USER COMMAND…``, -1 for our own user.

Run as a file, by a bare interpreter: nothing of the product is imported.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, user = int(sys.argv[1]), int(sys.argv[2])
    if user >= 0:
        os.setreuid(user, user)
    if sys.platform == "linux":
        # It holds through exec, but not through a change of user.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # it had ended before
            sys.exit(1)
    try:
        os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - what we were started for
    except OSError as error:
        sys.exit(f"{sys.argv[3]}: {error.strerror}")
