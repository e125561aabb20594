import re


def clean(text):
    return re.findall(r"[a-z']+", text.lower())
