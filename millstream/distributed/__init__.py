"""``paddle.distributed``: ``python -m paddle.distributed.launch train.py`` starts a training script."""
