from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_resume.launch import units


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("120s", 120_000),
        ("15min", 900_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("250ms", 250),
        ("1.5h", 5_400_000),
        ("0.001s", 1),
        ("1h30min", 5_400_000),
        ("1h 30min", 5_400_000),
        ("90 s", 90_000),
        (" 5s ", 5_000),
        ("0s", 0),
    ],
)
def test_a_duration_is_its_parts_in_milliseconds(text, ms):
    assert units.milliseconds(text) == ms


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("15m", "did you mean 15min?"),
        ("2 hours", "did you mean 2h?"),
        ("10sec", "did you mean 10s?"),
        ("3days", "did you mean 3d?"),
        ("120", "with its unit"),
        ("", "with its unit"),
        ("-5s", "with its unit"),
        ("5s\n6s x", "with its unit"),
        ("24:00:00", "with its unit"),
        ("1.2345s", "with its unit"),
        ("٣s", "with its unit"),
    ],
)
def test_a_duration_that_could_be_misread_is_refused_with_the_likely_one(text, advice):
    with pytest.raises(ValueError, match="must be a time") as error:
        units.milliseconds(text)
    assert advice in str(error.value)


@given(st.integers(0, 10**12))
def test_a_duration_in_words_is_read_back(ms):
    words = units.duration_words(ms)
    if len(words.rstrip("smhdin")) <= 9:
        assert units.milliseconds(words) == ms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("1:30", 90),
        ("24:00:00", 86_400),
        ("1-0", 86_400),
        ("1-12", 129_600),
        ("1-00:30", 88_200),
        ("2-03:04:05", 183_845),
        ("90:00", 5_400),
        ("0", None),
        ("0:00", None),
        ("UNLIMITED", None),
        ("infinite", None),
    ],
)
def test_a_slurm_time_is_what_sbatch_makes_of_it(text, seconds):
    assert units.slurm_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "-5", "1-", "1-2:3:4:5", "10 00", "1.5", "1:30\n", "٣"])
def test_a_slurm_time_of_another_form_is_refused(text):
    with pytest.raises(ValueError, match="must be a Slurm time"):
        units.slurm_seconds(text)


@given(st.integers(1, 10**7))
def test_a_clock_is_read_back(seconds):
    assert units.slurm_seconds(units.clock_words(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "kib"),
    [("16G", 16 * 1024**2), ("4000", 4_096_000), ("1T", 1024**3), ("512k", 512), ("2m", 2048), ("0", 0)],
)
def test_a_memory_size_is_in_megabytes_without_a_unit(text, kib):
    assert units.memory_kib(text) == kib


@pytest.mark.parametrize(
    ("text", "advice"),
    [("16GB", "did you mean 16G?"), ("16 GiB", "did you mean 16G?"), ("1.5G", "no fractions"), ("lots", "as 16G")],
)
def test_a_memory_size_that_slurm_would_refuse_is_refused_with_the_likely_one(text, advice):
    with pytest.raises(ValueError, match=r"must be a whole number") as error:
        units.memory_kib(text)
    assert advice in str(error.value)


@pytest.mark.parametrize(
    ("text", "tasks", "width"),
    [
        ("0-9", 10, 0),
        ("0-9%4", 10, 4),
        ("0-15:4", 4, 0),
        ("1,3,5", 3, 0),
        ("7", 1, 0),
        ("0-3,2-5", 6, 0),
        ("1-7:2%3", 4, 3),
    ],
)
def test_an_array_counts_each_index_once(text, tasks, width):
    assert units.array_indexes(text) == units.ArrayIndexes(tasks, width)


@pytest.mark.parametrize("text", ["", "a", "9-0", "0-9%", "0-9%x", "1,,2", "0-9:0", "-3", "0-4,3-4000001,0-4000001:2"])
def test_an_array_that_counts_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"array|%|first index"):
        units.array_indexes(text)
