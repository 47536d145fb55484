"""paddle.dataset

Each loader gives readers. What is printed here comes from small files in the formats of the real ones, which are downloaded
once, to ~/.cache/paddle/dataset.
"""
# ruff: noqa
#: setup
import itertools


def first(reader):
    """The first sample."""
    return next(iter(reader()))
#: paddle.dataset.mnist.train, paddle.dataset.mnist.test
pixels, label = first(paddle.dataset.mnist.train())
print(pixels.shape, pixels.dtype, 0 <= label < 10)
print(first(paddle.dataset.mnist.test())[0].shape)
#: paddle.dataset.cifar.train10, paddle.dataset.cifar.test10
pixels, label = first(paddle.dataset.cifar.train10())
print(pixels.shape, 0 <= label < 10)
print(first(paddle.dataset.cifar.test10())[0].shape)
#: paddle.dataset.flowers.train, paddle.dataset.flowers.test
pixels, label = first(paddle.dataset.flowers.train(use_xmap=False))
print(pixels.shape)  # 3 x 224 x 224
print(first(paddle.dataset.flowers.test(use_xmap=False))[0].shape)
#: paddle.dataset.uci_housing.train, paddle.dataset.uci_housing.test
features, price = first(paddle.dataset.uci_housing.train())
print(features.shape, price.shape)
print(first(paddle.dataset.uci_housing.test())[0].shape)
#: paddle.dataset.imdb.word_dict, paddle.dataset.imdb.train, paddle.dataset.imdb.test
words = paddle.dataset.imdb.word_dict()
ids, label = first(paddle.dataset.imdb.train(words))
print("<unk>" in words, all(0 <= i < len(words) for i in ids), label)
print(len(list(paddle.dataset.imdb.test(words)())) > 0)
#: paddle.dataset.imikolov.build_dict, paddle.dataset.imikolov.train, paddle.dataset.imikolov.test
words = paddle.dataset.imikolov.build_dict(min_word_freq=0)
print(len(first(paddle.dataset.imikolov.train(words, 3))), len(first(paddle.dataset.imikolov.test(words, 3))))
#: paddle.dataset.movielens.train, paddle.dataset.movielens.test, paddle.dataset.movielens.get_movie_title_dict, paddle.dataset.movielens.max_job_id, paddle.dataset.movielens.max_movie_id, paddle.dataset.movielens.max_user_id, paddle.dataset.movielens.movie_categories, paddle.dataset.movielens.movie_info
sample = first(paddle.dataset.movielens.train())  # user, gender, age, job, movie, categories, title, rating
print(len(sample), type(paddle.dataset.movielens.get_movie_title_dict()).__name__)
print(paddle.dataset.movielens.max_user_id(), paddle.dataset.movielens.max_job_id(), paddle.dataset.movielens.max_movie_id())
print(sorted(paddle.dataset.movielens.movie_categories())[:2])
print(sorted(paddle.dataset.movielens.movie_info())[:3], len(list(paddle.dataset.movielens.test()())) >= 0)
#: paddle.dataset.conll05.get_dict, paddle.dataset.conll05.test, paddle.dataset.conll05.get_embedding
words, verbs, labels = paddle.dataset.conll05.get_dict()
sample = first(paddle.dataset.conll05.test())  # words, five words around the verb, verb, mark, labels
print(len(sample), len(sample[0]) == len(sample[-1]))
print(paddle.dataset.conll05.get_embedding().split("/")[-1])
#: paddle.dataset.wmt14.train, paddle.dataset.wmt14.test, paddle.dataset.wmt14.get_dict
source, target, following = first(paddle.dataset.wmt14.train(6))
print(target[1:] == following[:-1], len(list(paddle.dataset.wmt14.test(6)())) > 0)
print(paddle.dataset.wmt14.get_dict(4)[0][0])
#: paddle.dataset.wmt16.train, paddle.dataset.wmt16.test, paddle.dataset.wmt16.get_dict
source, target, following = first(paddle.dataset.wmt16.train(6, 7))
print(target[1:] == following[:-1], len(list(paddle.dataset.wmt16.test(6, 7)())) > 0)
print(paddle.dataset.wmt16.get_dict("en", 5)["<unk>"])
#: paddle.dataset.common.download
import hashlib
import os

folder = os.path.join(paddle.dataset.common.DATA_HOME, "mine")
os.makedirs(folder)
with open(os.path.join(folder, "words.txt"), "w") as out:
    out.write("there already")
digest = hashlib.md5(b"there already").hexdigest()
path = paddle.dataset.common.download("http://host/words.txt", "mine", digest)  # a file with this sum is kept
print(path == os.path.join(folder, "words.txt"))
