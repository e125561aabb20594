from .constants import CIRCLE_TO_SQUARE


def area(shape, size):
    square = size * size
    return square * CIRCLE_TO_SQUARE if shape == "circle" else square
