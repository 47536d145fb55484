"""``fluid.data_feed_desc``, where 1.x programs import it from."""

from millstream.fluid.dataset import DataFeedDesc

__all__ = ["DataFeedDesc"]
