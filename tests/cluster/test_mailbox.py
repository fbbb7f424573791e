"""Curves reach the driver in order, the last one always."""

import json
import time

import pytest

from pipeline.cluster.mailbox import SECONDS_BETWEEN_LOOKS, leave, mailbox


def test_letters_arrive_while_the_block_lasts_and_the_last_one_at_its_end() -> None:
    received = []
    with mailbox(received.append) as folder:
        leave(folder, [{"iteration": 1}])
        deadline = time.monotonic() + 20 * SECONDS_BETWEEN_LOOKS
        while not received and time.monotonic() < deadline:
            time.sleep(0.05)
        assert received == [[{"iteration": 1}]]
        leave(folder, [{"iteration": 1}, {"iteration": 2}])
    assert received[-1] == [{"iteration": 1}, {"iteration": 2}]


@pytest.mark.slow
def test_an_empty_mailbox_and_an_unchanged_letter_are_not_handed_on() -> None:
    received: list[object] = []
    with mailbox(received.append):
        pass
    assert received == []
    with mailbox(received.append) as folder:
        leave(folder, [{"iteration": 1}])
        time.sleep(3 * SECONDS_BETWEEN_LOOKS)
    assert json.dumps(received) == '[[{"iteration": 1}]]'
