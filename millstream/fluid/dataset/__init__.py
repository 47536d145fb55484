"""``fluid.dataset``: training data in text files, read by commands and threads of its own."""

from millstream.fluid.dataset.datasets import DatasetBase, DatasetFactory, FileInstantDataset, InMemoryDataset, QueueDataset
from millstream.fluid.dataset.desc import DataFeedDesc

__all__ = ["DataFeedDesc", "DatasetBase", "DatasetFactory", "FileInstantDataset", "InMemoryDataset", "QueueDataset"]
