"""MovieLens 1M: 1,000,209 ratings of 3,900 films by 6,040 users.

Samples are ``[user id, gender (0 male), age class, job, film id, [category ids], [title word
ids], [rating]]`` with the rating 1..5 mapped to -3..5 by 2 r - 5. Source: GroupLens, 2003.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import FileFormatError
from . import common

__all__ = [
    "MovieInfo",
    "UserInfo",
    "age_table",
    "fetch",
    "get_movie_title_dict",
    "max_job_id",
    "max_movie_id",
    "max_user_id",
    "movie_categories",
    "movie_info",
    "test",
    "train",
    "unittest",
    "user_info",
]

URL = "https://dataset.bj.bcebos.com/movielens%2Fml-1m.zip"
MD5 = "c4d9eecfca2ab87c1945afe126590906"

age_table = [1, 18, 25, 35, 45, 50, 56]
_TITLE = re.compile(r"^(.*)\((\d+)\)$")


class MovieInfo:
    """A film: id, category names and title (without the year)."""

    def __init__(self, index: Any, categories: list[str], title: str) -> None:
        self.index = int(index)
        self.categories = categories
        self.title = title

    def value(self) -> list[Any]:
        """``[id, [category ids], [title word ids]]``."""
        categories, words = movie_categories(), get_movie_title_dict()
        return [
            self.index,
            [categories[name] for name in self.categories],
            [words[word.lower()] for word in self.title.split()],
        ]

    def __str__(self) -> str:
        return f"<MovieInfo id({self.index}), title({self.title}), categories({self.categories})>"

    __repr__ = __str__


class UserInfo:
    """A user: id, gender ("M" or "F"), lower bound of the age class, job id.

    The attribute `age` is the class: an index into `age_table`.
    """

    def __init__(self, index: Any, gender: str, age: Any, job_id: Any) -> None:
        self.index = int(index)
        self.is_male = gender == "M"
        self.age = age_table.index(int(age))
        self.job_id = int(job_id)

    def value(self) -> list[int]:
        """``[id, 0 if male else 1, index of the age in age_table, job id]``."""
        return [self.index, 0 if self.is_male else 1, self.age, self.job_id]

    def __str__(self) -> str:
        gender = "M" if self.is_male else "F"
        return f"<UserInfo id({self.index}), gender({gender}), age({age_table[self.age]}), job({self.job_id})>"

    __repr__ = __str__


@dataclass
class _Tables:
    movies: dict[int, MovieInfo]
    users: dict[int, UserInfo]
    title_words: dict[str, int]
    categories: dict[str, int]


def _records(path: str, member: str, fields: int) -> Iterator[list[str]]:
    with zipfile.ZipFile(path) as archive, archive.open(f"ml-1m/{member}") as stream:
        for number, raw in enumerate(stream, 1):
            record = raw.decode("latin1").strip().split("::")
            if len(record) != fields:
                raise FileFormatError(f"{path}: {member} line {number}: expected {fields} fields, got {len(record)}")
            yield record


@lru_cache(maxsize=2)
def _load(path: str) -> _Tables:
    movies: dict[int, MovieInfo] = {}
    words: set[str] = set()
    categories: set[str] = set()
    for index, name, kinds in _records(path, "movies.dat", 3):
        match = _TITLE.match(name)
        if match is None:
            raise FileFormatError(f"{path}: movies.dat: no year in the title {name!r}")
        title = match.group(1)
        movies[int(index)] = MovieInfo(index, kinds.split("|"), title)
        categories.update(kinds.split("|"))
        words.update(word.lower() for word in title.split())
    users = {int(index): UserInfo(index, gender, age, job) for index, gender, age, job, _ in _records(path, "users.dat", 5)}
    # Sorted, so that ids do not change from one process to the next.
    return _Tables(
        movies,
        users,
        {word: i for i, word in enumerate(sorted(words))},
        {name: i for i, name in enumerate(sorted(categories))},
    )


def _tables() -> _Tables:
    return _load(common.download(URL, "movielens", MD5))


def _samples(is_test: bool, test_ratio: float, rand_seed: int) -> Iterator[list[Any]]:
    path = common.download(URL, "movielens", MD5)
    tables = _tables()
    draw = np.random.RandomState(rand_seed)
    movie_values = {index: movie.value() for index, movie in tables.movies.items()}
    user_values = {index: user.value() for index, user in tables.users.items()}
    for user, movie, rating, _ in _records(path, "ratings.dat", 4):
        if (draw.random_sample() < test_ratio) == is_test:
            score = float(rating) * 2 - 5.0
            yield user_values[int(user)] + movie_values[int(movie)] + [[score]]


def _creator(is_test: bool, kwargs: dict[str, Any]) -> Callable[[], Iterator[list[Any]]]:
    options = {"test_ratio": 0.1, "rand_seed": 0, "is_test": is_test}
    unknown = sorted(set(kwargs) - set(options))
    if unknown:
        raise TypeError(f"movielens: unknown arguments {unknown}, expected some of {list(options)}")
    options.update(kwargs)
    return lambda: _samples(**options)  # type: ignore[arg-type]


def train(**kwargs: Any) -> Callable[[], Iterator[list[Any]]]:
    """A reader of about 90 % of the ratings, drawn by `rand_seed` (0) and `test_ratio` (0.1)."""
    return _creator(False, kwargs)


def test(**kwargs: Any) -> Callable[[], Iterator[list[Any]]]:
    """A reader of the ratings that :func:`train` leaves out for the same arguments."""
    return _creator(True, kwargs)


def get_movie_title_dict() -> dict[str, int]:
    """lower-case title word -> id."""
    return _tables().title_words


def movie_categories() -> dict[str, int]:
    """category name -> id."""
    return _tables().categories


def max_movie_id() -> int:
    """The largest film id."""
    return max(_tables().movies)


def max_user_id() -> int:
    """The largest user id."""
    return max(_tables().users)


def max_job_id() -> int:
    """The largest job id."""
    return max(user.job_id for user in _tables().users.values())


def user_info() -> dict[int, UserInfo]:
    """user id -> UserInfo."""
    return _tables().users


def movie_info() -> dict[int, MovieInfo]:
    """film id -> MovieInfo."""
    return _tables().movies


def unittest() -> None:
    """Count the training and test samples and print both."""
    print(sum(1 for _ in train()()), sum(1 for _ in test()()))


def fetch() -> None:
    """Download the archive."""
    common.download(URL, "movielens", MD5)
