"""The conditions of the matrix, by kind. Each states only what differs from 'done'."""

import os

from cells import Condition

CONDITIONS = [
    Condition("none", "plain", "nothing is wrong: the matrix itself is right", needs=()),
]

KINDS = {"none": "Nothing"}


def unavailable(condition):
    return None
