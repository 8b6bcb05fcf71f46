"""The colours of figures: Okabe and Ito's, told apart by people who do not see all colours."""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
