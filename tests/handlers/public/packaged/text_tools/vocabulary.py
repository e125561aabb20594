import os
from importlib import resources

from . import cleaning


class Vocabulary:
    def __init__(self, words):
        self.words = words

    @classmethod
    def load(cls, directory):
        with open(os.path.join(directory, "words.txt")) as lines:
            words = [cleaning.clean(line)[0] for line in lines]
        ignored = resources.files(__package__).joinpath("data", "ignored.txt").read_text().split()
        return cls([word for word in words if word not in ignored])

    def count(self, words):
        return [words.count(word) for word in self.words]
