"""What is in TensorBoard's event files, read record by record: a point counts only if it is on the disk."""

import struct
from collections import Counter
from pathlib import Path

try:
    from tensorboard.compat.proto.event_pb2 import Event
except ImportError:
    from tensorboardX.proto.event_pb2 import Event


def count_points(folder: str) -> Counter[str]:
    """Points of each series in all event files below ``folder``."""
    found: Counter[str] = Counter()
    for file in Path(folder).rglob("events.out.tfevents.*"):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)  # then 4 bytes of checksum, the event, 4 more
            event = Event.FromString(content[at + 12 : at + 12 + length])
            found.update(value.tag for value in event.summary.value)
            at += length + 16
    return found
