"""What happens to activities, told to whoever watches: publishing, following, streamed text.

`publisher` announces changes, `follow` gives each client what is new to it; the websocket and server-sent
events are thin covers of it. Needs no Channels, but is faster with a channel layer.
"""

from __future__ import annotations

from .follow import Follower, follow_activity, follow_feed

__all__ = ["Follower", "follow_activity", "follow_feed"]
