r"""Values as bash and sbatch read them back, byte for byte: the only place that quotes.

bash: single quotes, as `shlex` writes them, and $'…' where a control character would make the line unreadable or, as a
carriage return does, make sbatch take the script for a DOS file and refuse it. sbatch: double quotes with \\ before \\
and "; measured with 22.05 on 22 values, spaces, quotes, `#`, backslashes and UTF-8 among them.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

LINE_WIDTH: Final = 100  # an array longer than this is written one word per line

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BARE_IN_DIRECTIVE: Final = re.compile(r"[A-Za-z0-9_@%+=:,./~^*\[\]&|-]+")
_UNFIT_IN_DIRECTIVE: Final = re.compile(r"[\x00-\x1f\x7f]")


class Raw(str):
    """Text that is bash already. Only the runtime is."""

    __slots__ = ()


def quote(value: object) -> str:
    """A text, a whole number or a tuple of texts as bash source. Raises TypeError for anything else."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, tuple):
        return _array([_word(word) for word in value])
    raise TypeError(f"{type(value).__name__} has no form in bash")


def _word(text: str) -> str:
    if "\0" in text:
        raise ValueError("bash cannot hold a NUL")
    return f"$'{_CONTROL.sub(_escape, _quotes_escaped(text))}'" if _CONTROL.search(text) else shlex.quote(text)


def _quotes_escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"


def _array(words: list[str]) -> str:
    line = f"({' '.join(words)})"
    if len(line) <= LINE_WIDTH and "\n" not in line:
        return line
    return "(\n" + "".join(f"    {word}\n" for word in words) + "  )"


def directive(option: str, value: str | None) -> str:
    """One #SBATCH line. Raises ValueError for what such a line cannot hold: control characters, line breaks first."""
    if value is None:
        return f"#SBATCH --{option}"
    if unfit := _UNFIT_IN_DIRECTIVE.search(value):
        raise ValueError(f"U+{ord(unfit[0]):04X} cannot stand in an #SBATCH line (--{option})")
    if _BARE_IN_DIRECTIVE.fullmatch(value):
        return f"#SBATCH --{option}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'#SBATCH --{option}="{escaped}"'
