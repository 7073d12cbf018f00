"""What the handler records of several signals: the first decides, and only one of another number is the second."""

from __future__ import annotations

import signal

from hpc_resume.run.signals import Recorder


def test_the_same_signal_again_is_counted_and_does_not_take_the_place_of_a_second_one():
    recorder = Recorder()
    recorder.install((signal.SIGUSR1, signal.SIGTERM))
    try:
        for signum in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(signum)
        assert (recorder.first.name, recorder.second.name, recorder.count) == ("USR1", "TERM", 4)
    finally:
        recorder.release(leaving=False)
