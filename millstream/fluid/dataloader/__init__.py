"""``fluid.dataloader``: datasets, the order in which they are read, and the processes that read them."""

from millstream.fluid.dataloader import dataloader_iter
from millstream.fluid.dataloader.batch_sampler import BatchSampler, RandomSampler, Sampler, SequenceSampler
from millstream.fluid.dataloader.dataset import Dataset, IterableDataset, TensorDataset

__all__ = [
    "BatchSampler",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequenceSampler",
    "TensorDataset",
    "dataloader_iter",
]
