"""Dollars as arithmetic: the price book, what a stage should cost and may cost at worst, bills by traffic, break-even.

It never spends, reads no file and asks no clock: prices, sizes and rows are handed in. Start reading at `price_book.py`.
"""

from leastwise.money.economics import BreakEven, break_even
from leastwise.money.price_book import PriceBook, UnknownPrice

__all__ = ["BreakEven", "PriceBook", "UnknownPrice", "break_even"]
