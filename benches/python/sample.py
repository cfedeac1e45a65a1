"""Takes one sample of a contender in Python and prints it as one JSON object, a key ending in its unit.

    "$(scripts/bench-python)" benches/python/sample.py round_trip_real ratite-python

The contenders are `ratite-python` and `python`, which is the original. YARDSTICK_PEER is the program that plays QEMU,
YARDSTICK_REPLY a recorded reply to `query-qmp-schema`, and with YARDSTICK_QUICK everything is done for a moment only. For
what a contender cannot do, the object is `{"cannot": WHY}`.
"""

from __future__ import annotations

import importlib
import json
import sys

CONTENDERS = {"python": "original", "ratite-python": "ours"}


def main() -> int:
    """Returns the exit status."""
    if len(sys.argv) != 3 or sys.argv[2] not in CONTENDERS:
        print(__doc__, file=sys.stderr)
        return 2
    scenario, contender = sys.argv[1:]
    try:
        side = importlib.import_module(CONTENDERS[contender])
    except ImportError as error:
        print(json.dumps({"cannot": f"it is not installed: {error}"}))
        return 0
    from measure import Cannot
    from scenarios import Scenarios

    try:
        method = getattr(Scenarios(side), scenario, None)
        if method is None:
            raise Cannot("there is nothing for it in Python")
        print(json.dumps(method()))
    except Cannot as why:
        print(json.dumps({"cannot": str(why)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
