"""paddle.dataset: parts of the loaders, and images

Dictionaries, readers over files that are already there, and what turns pictures into arrays.
"""
# ruff: noqa
#: setup
import itertools


def first(reader):
    """The first sample."""
    return next(iter(reader()))
#: paddle.dataset.cifar.train100, paddle.dataset.cifar.test100
pixels, label = first(paddle.dataset.cifar.train100())
print(pixels.shape, 0 <= label < 100, first(paddle.dataset.cifar.test100())[0].shape)
#: paddle.dataset.sentiment.train, paddle.dataset.sentiment.test, paddle.dataset.sentiment.get_word_dict
words = paddle.dataset.sentiment.get_word_dict()
ids, label = first(paddle.dataset.sentiment.train)
print(len(words) > 0, max(ids) < len(words), label in (0, 1))
print(sorted({label for _, label in paddle.dataset.sentiment.train()}), all(ids for ids, _ in paddle.dataset.sentiment.test()))
#: paddle.dataset.wmt14.gen, paddle.dataset.wmt16.validation
print(len(first(paddle.dataset.wmt14.gen(6))), len(first(paddle.dataset.wmt16.validation(6, 7))))
#: paddle.dataset.movielens.user_info, paddle.dataset.movielens.UserInfo, paddle.dataset.movielens.MovieInfo
users, films = paddle.dataset.movielens.user_info(), paddle.dataset.movielens.movie_info()
user, film = list(users.values())[0], list(films.values())[0]
print(isinstance(user, paddle.dataset.movielens.UserInfo), len(user.value()), user.index == user.value()[0])
print(isinstance(film, paddle.dataset.movielens.MovieInfo), film.index == list(films)[0], len(film.value()))
#: paddle.dataset.imdb.tokenize, paddle.dataset.imdb.build_dict
import re

documents = re.compile(r"aclImdb/train/pos/.*\.txt$")
review = next(iter(paddle.dataset.imdb.tokenize(documents)))
print(len(review) > 0, all(word == word.lower() for word in review))
print("<unk>" in paddle.dataset.imdb.build_dict(documents, 0))
#: paddle.dataset.imikolov.word_count, paddle.dataset.imikolov.DataType
print(sorted(paddle.dataset.imikolov.word_count(["a b a"]).items()))
print(paddle.dataset.imikolov.DataType.NGRAM, paddle.dataset.imikolov.DataType.SEQ)
#: paddle.dataset.common.md5file, paddle.dataset.common.must_mkdirs
import os

paddle.dataset.common.must_mkdirs("kept")
with open("kept/word", "w") as out:
    out.write("word")
print(os.path.isdir("kept"), paddle.dataset.common.md5file("kept/word"))
#: paddle.dataset.image.resize_short, paddle.dataset.image.center_crop, paddle.dataset.image.simple_transform
picture = np.zeros((20, 40, 3), "uint8")
small = paddle.dataset.image.resize_short(picture, 10)
print(small.shape, paddle.dataset.image.center_crop(small, 8).shape)
print(paddle.dataset.image.simple_transform(picture, 10, 8, is_train=False).shape)
#: paddle.dataset.image.load_image_bytes, paddle.dataset.image.load_and_transform
from PIL import Image

Image.new("RGB", (40, 20), (10, 20, 30)).save("picture.png")
with open("picture.png", "rb") as source:
    print(paddle.dataset.image.load_image_bytes(source.read())[0, 0].tolist())  # blue, green, red
print(paddle.dataset.image.load_and_transform("picture.png", 10, 8, is_train=False).shape)
#: paddle.dataset.mq2007.Query, paddle.dataset.mq2007.QueryList, paddle.dataset.mq2007.gen_point, paddle.dataset.mq2007.gen_pair, paddle.dataset.mq2007.gen_list
queries = paddle.dataset.mq2007.QueryList(
    [paddle.dataset.mq2007.Query(1, relevance, [float(relevance)]) for relevance in (2, 0)]
)
print([(relevance, features.tolist()) for relevance, features in paddle.dataset.mq2007.gen_point(queries)])
print(len(list(paddle.dataset.mq2007.gen_pair(queries))), len(list(paddle.dataset.mq2007.gen_list(queries))))
#: paddle.dataset.voc2012.train, paddle.dataset.voc2012.val, paddle.dataset.voc2012.test
picture, classes = first(paddle.dataset.voc2012.train())  # and the class of each pixel
print(picture.shape, len(list(paddle.dataset.voc2012.val()())) > 0, len(list(paddle.dataset.voc2012.test()())) > 0)
#: paddle.dataset.flowers.valid
print(first(paddle.dataset.flowers.valid(use_xmap=False))[0].shape)
