"""Segment and tag Chinese sentences with Baidu's own model inside the jieba package, unmodified.

Run it with `millstream run examples/tag_sentences.py`; needs `pip install jieba`.
"""

import logging

import jieba
import jieba.posseg

SENTENCES = [
    "百度是一家高科技公司",
    "我来到北京清华大学",
    "小明硕士毕业于中国科学院计算所,后在日本京都大学深造",
    "2018年上海的夏天特别热",
]

if __name__ == "__main__":
    jieba.setLogLevel(logging.WARNING)
    jieba.enable_paddle()
    for sentence in SENTENCES:
        words = jieba.posseg.cut(sentence, use_paddle=True)
        print("  ".join("%s/%s" % (word, flag) for word, flag in words))
