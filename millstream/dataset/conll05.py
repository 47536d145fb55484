"""CoNLL-2005 semantic role labelling, Wall Street Journal test section.

Samples are nine lists of the sentence's length: word ids; ids of the words at -2, -1, 0, +1, +2
of the predicate, each repeated; predicate ids; 1 at those five positions and 0 elsewhere; label
ids (B-/I-/O). The training section is not free, so there is only ``test``, as in Fluid.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from itertools import zip_longest

from ..errors import FileFormatError
from . import common
from .archives import member_bytes

__all__ = [
    "corpus_reader",
    "fetch",
    "get_dict",
    "get_embedding",
    "load_dict",
    "load_label_dict",
    "reader_creator",
    "test",
]

_PREFIX = "http://paddlemodels.bj.bcebos.com/conll05st"
DATA_URL = _PREFIX + "/conll05st-tests.tar.gz"
DATA_MD5 = "387719152ae52d60422c016e92a742fc"
WORDDICT_URL = _PREFIX + "%2FwordDict.txt"
WORDDICT_MD5 = "ea7fb7d4c75cc6254716f0177a506baa"
VERBDICT_URL = _PREFIX + "%2FverbDict.txt"
VERBDICT_MD5 = "0d2977293bbb6cbefab5b0f97db1e77c"
TRGDICT_URL = _PREFIX + "%2FtargetDict.txt"
TRGDICT_MD5 = "d8c7f03ceb5fc2e5a0fa7503a4353751"
EMB_URL = _PREFIX + "%2Femb"
EMB_MD5 = "bf436eb0faa1f6f9103017f8be57cdb7"
UNK_IDX = 0

_WORDS = "conll05st-release/test.wsj/words/test.wsj.words.gz"
_PROPS = "conll05st-release/test.wsj/props/test.wsj.props.gz"

Sentence = tuple[list[str], str, list[str]]
Sample = tuple[list[int], ...]


def load_dict(filename: str) -> dict[str, int]:
    """line -> line number."""
    with open(filename, encoding="utf-8") as stream:
        return {line.strip(): number for number, line in enumerate(stream)}


def load_label_dict(filename: str) -> dict[str, int]:
    """B- and I- ids of each tag in order of first appearance; "O" is last."""
    tags: dict[str, None] = {}
    with open(filename, encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(("B-", "I-")):
                tags[line.strip()[2:]] = None
    labels: dict[str, int] = {}
    for tag in tags:
        labels["B-" + tag] = len(labels)
        labels["I-" + tag] = len(labels)
    labels["O"] = len(labels)
    return labels


def _to_bio(column: list[str], where: str) -> list[str]:
    """``(A0* * *) (V*)`` -> ``B-A0 I-A0 I-A0 B-V``."""
    labels: list[str] = []
    current = ""
    for cell in column:
        if cell.startswith("("):
            current = cell[1 : cell.index("*")]
            labels.append("B-" + current)
        elif cell.startswith("*"):
            labels.append("I-" + current if current else "O")
        else:
            raise FileFormatError(f"{where}: unexpected label {cell!r}")
        if cell.endswith(")"):
            current = ""
    return labels


def corpus_reader(data_path: str, words_name: str, props_name: str) -> Callable[[], Iterator[Sentence]]:
    """A reader of (words, predicate, BIO labels), one for each predicate of each sentence.

    `words_name` and `props_name` are gzip-compressed members of the tar archive `data_path`.
    """

    def sentence(words: list[str], rows: list[list[str]]) -> Iterator[Sentence]:
        if len({len(row) for row in rows}) > 1:
            raise FileFormatError(f"{props_name}: ragged columns at sentence {words[:5]}")
        predicates, *columns = (list(column) for column in zip(*rows, strict=True))
        verbs = [verb for verb in predicates if verb != "-"]
        if len(verbs) != len(columns):
            raise FileFormatError(f"{props_name}: {len(verbs)} predicates, {len(columns)} columns at {words[:5]}")
        for verb, column in zip(verbs, columns, strict=True):
            yield list(words), verb, _to_bio(column, props_name)

    def reader() -> Iterator[Sentence]:
        word_lines = gzip.decompress(member_bytes(data_path, words_name)).decode().splitlines()
        prop_lines = gzip.decompress(member_bytes(data_path, props_name)).decode().splitlines()
        words: list[str] = []
        rows: list[list[str]] = []
        for word, prop in zip_longest([*word_lines, ""], [*prop_lines, ""]):
            if word is None or prop is None or bool(word.strip()) != bool(prop.strip()):
                raise FileFormatError(f"{words_name} and {props_name} have different sentences")
            if word.strip():
                words.append(word.strip())
                rows.append(prop.split())
            elif words:
                yield from sentence(words, rows)
                words, rows = [], []

    return reader


def reader_creator(
    corpus_reader: Callable[[], Iterator[Sentence]],
    word_dict: dict[str, int] | None = None,
    predicate_dict: dict[str, int] | None = None,
    label_dict: dict[str, int] | None = None,
) -> Callable[[], Iterator[Sample]]:
    """A reader of samples as described at the top; words not in `word_dict` get id 0."""
    if word_dict is None or predicate_dict is None or label_dict is None:
        raise ValueError("conll05.reader_creator needs word_dict, predicate_dict and label_dict")

    def sample(words: list[str], predicate: str, labels: list[str]) -> Sample:
        length = len(words)
        if "B-V" not in labels:
            raise FileFormatError(f"conll05: no B-V label for {predicate!r} in {words[:8]}")
        verb = labels.index("B-V")
        around = []
        mark = [0] * length
        for offset in (-2, -1, 0, 1, 2):
            at = verb + offset
            if 0 <= at < length:
                mark[at] = 1
            word = "bos" if at < 0 else "eos" if at >= length else words[at]
            around.append([word_dict.get(word, UNK_IDX)] * length)
        try:
            predicate_ids = [predicate_dict[predicate]] * length
            label_ids = [label_dict[label] for label in labels]
        except KeyError as error:
            raise KeyError(f"conll05: {error} is in the corpus but not in its dictionary") from None
        word_ids = [word_dict.get(word, UNK_IDX) for word in words]
        return (word_ids, *around, predicate_ids, mark, label_ids)

    return lambda: (sample(*sentence) for sentence in corpus_reader())


def get_dict() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Word, verb and label dictionaries."""
    return (
        load_dict(common.download(WORDDICT_URL, "conll05st", WORDDICT_MD5)),
        load_dict(common.download(VERBDICT_URL, "conll05st", VERBDICT_MD5)),
        load_label_dict(common.download(TRGDICT_URL, "conll05st", TRGDICT_MD5)),
    )


def get_embedding() -> str:
    """Path of the pre-trained word vectors: 16 bytes of header, then float32 [words, 32]."""
    return common.download(EMB_URL, "conll05st", EMB_MD5)


def test() -> Callable[[], Iterator[Sample]]:
    """A reader of the test section."""
    path = common.download(DATA_URL, "conll05st", DATA_MD5)
    return reader_creator(corpus_reader(path, _WORDS, _PROPS), *get_dict())


def fetch() -> None:
    """Download the five files."""
    get_dict()
    get_embedding()
    common.download(DATA_URL, "conll05st", DATA_MD5)
