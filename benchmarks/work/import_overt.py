"""Times ``import overt``, as every script pays it; its public names load when they are used."""

import json
import time

began = time.perf_counter()
import overt  # noqa: E402

seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "expect": {}}))
assert overt.__all__
