"""Dollars as arithmetic: the price book, what a stage should cost and may cost at worst, bills by traffic; and
the dated book of models.

It never spends, reads no file or clock: prices, sizes and rows are handed in. Start reading at `price_book.py`.
"""

from leastwise.money.economics import BreakEven, break_even
from leastwise.money.price_book import PriceBook, UnknownPrice

__all__ = ["BreakEven", "PriceBook", "UnknownPrice", "break_even"]
