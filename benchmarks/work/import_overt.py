"""Times ``import overt`` with its public names, as a script pays it."""

import json
import time

began = time.perf_counter()
import overt  # noqa: E402

seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "expect": {}}))
assert overt.__all__
