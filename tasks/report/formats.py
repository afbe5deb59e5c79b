"""How is a number written? Grouped thousands, sensible digits, units."""

from __future__ import annotations

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def count(value: float) -> str:
    """A whole number with grouped thousands: 1,682."""
    return f"{value:,.0f}".replace("-", MINUS)


def decimal(value: float, digits: int = 3) -> str:
    """A number with a fixed number of decimals, grouped: 0.081."""
    return f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: +0.012; plus-minus 0 where it rounds to nothing."""
    text = f"{value:+,.{digits}f}"
    if not text.strip("+-0.,"):
        return "\N{PLUS-MINUS SIGN}0"
    return text.replace("-", MINUS)


def chance(value: float) -> str:
    """A p-value: 0.042, or <0.001."""
    return "<0.001" if value < 0.001 else decimal(value)


def measure(value: float) -> str:
    """A quality metric: whole numbers grouped, others to four significant decimals, never rounded up to 1."""
    if value == int(value):
        return count(value)
    text = decimal(value, 4)
    return "0.9999" if value < 1 and text == "1.0000" else text


def share(part: float, whole: float) -> str:
    """A part of a whole in per cent; never 0 % for something nor 100 % for less than all."""
    if not whole:
        return DASH
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "<0.1 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.1f} %"


def seconds(value: float) -> str:
    """A duration: 0.42 s, 12.3 s, 2 min 05 s, 1 h 02 min."""
    if value < 1:
        return f"{value:.2f} s"
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def mebibytes(value: float) -> str:
    """A size given in MiB: 812 MiB, 2.9 GiB."""
    return f"{value:,.0f} MiB" if value < 1023.5 else f"{value / 1024:,.1f} GiB"


def plural(number: float, one: str, many: str | None = None) -> str:
    """A number and its noun: 1 gate, 3 gates."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"
