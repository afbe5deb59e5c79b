"""In which order do rows of a key and an instant come? By one number a row: key, instant, and place in the stream.

Sorting numbers is several times as fast as sorting places by their numbers. Where an instant does not fit beside key
and place, its first bits do; what they leave open is settled afterwards, so that the order is exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint64]

#: Before every instant.
NEVER = np.iinfo(np.int64).min


class KeyOrder:
    """Rows in the order of key, instant, and place.

    Attributes:
        rows: the places in that order.

    Args:
        codes: the key's number, from 0 to ``highest``.
        instants: microseconds.
        highest: the highest number of a key.
        upto: an instant that will be asked about, if it is after all rows'.
    """

    def __init__(self, codes: Integers, instants: Integers, highest: int, upto: int = NEVER) -> None:
        count = len(codes)
        self._low = int(instants.min()) if count else 0
        span = max(int(instants.max()) if count else 0, upto) - self._low
        self._row_bits = max(count - 1, 1).bit_length()
        self._time_bits = min(64 - self._row_bits - highest.bit_length(), max(span, 1).bit_length())
        self._coarse = max(span, 1).bit_length() - self._time_bits
        self._sorted = self._numbers(codes, instants)
        self._sorted |= np.arange(count, dtype=np.uint64)
        self._sorted.sort()
        self.rows: Integers = (self._sorted & np.uint64((1 << self._row_bits) - 1)).view(np.int64)
        self._instants = instants
        if self._coarse and (instants[1:] < instants[:-1]).any():
            self._settle()

    def count_until(self, codes: Integers, instants: Integers) -> Integers:
        """How many rows come before or at each key and instant, which must be in order."""
        wanted = self._numbers(codes, instants)
        before_all = instants < self._low
        ends = np.searchsorted(self._sorted, wanted | np.uint64((1 << self._row_bits) - 1), side="right")
        if before_all.any():
            ends[before_all] = np.searchsorted(self._sorted, wanted[before_all])
        if self._coarse:
            # The first bits are equal: which of these rows are later, the instants themselves must say.
            row_bits = np.uint64(self._row_bits)
            last = np.maximum(ends - 1, 0)
            near = np.flatnonzero((ends > 0) & (self._sorted[last] >> row_bits == wanted >> row_bits))
            near = near[self._instants[self.rows[last[near]]] > instants[near]]
            first, end = np.searchsorted(self._sorted, wanted[near]), ends[near]
            while (first < end).any():
                middle = (first + end) // 2
                there = self._instants[self.rows[np.minimum(middle, len(self.rows) - 1)]]
                before = (first < end) & (there <= instants[near])
                first, end = np.where(before, middle + 1, first), np.where(before, end, middle)
            ends[near] = first
        return ends

    def _numbers(self, codes: Integers, instants: Integers) -> Numbers:
        """Key and instant as far as it fits as one number, with room for the row's place. Instants may be too early."""
        # The difference of two instants may leave the signed numbers, but not the unsigned ones.
        since = np.maximum(instants, self._low) - self._low
        numbers = since.view(np.uint64) >> np.uint64(self._coarse)
        numbers |= codes.view(np.uint64) << np.uint64(self._time_bits)
        numbers <<= np.uint64(self._row_bits)
        return numbers

    def _settle(self) -> None:
        """Put into order what the first bits of the instants left as it came."""
        numbers = self._sorted >> np.uint64(self._row_bits)
        same = np.flatnonzero(numbers[1:] == numbers[:-1])
        wrong = same[self._instants[self.rows[same + 1]] < self._instants[self.rows[same]]]
        # Every place whose first bits some place has that is out of order.
        firsts = np.unique(numbers[wrong])
        begin = np.searchsorted(numbers, firsts)
        lengths = np.searchsorted(numbers, firsts, side="right") - begin
        group = np.repeat(np.arange(len(firsts)), lengths)
        places = np.arange(len(group)) + np.repeat(begin - np.cumsum(lengths) + lengths, lengths)
        rows = self.rows[places]
        self.rows[places] = rows[np.lexsort((self._instants[rows], group))]
