# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes secrets out of text that is handed to others.

A Redactor knows values, finds them in any of the encodings in which programs print them, and knows what secrets look like that nobody
told it of. Text goes through a Stream in pieces that end with a line, so memory holds one piece. All that is done costs time in
proportion to the text, whoever wrote it. No message of this module holds a secret.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import base64
import binascii
import collections
import json
import re
import typing as t
import urllib.parse

# Shorter values are not looked for as they are: they would take words and numbers out of every line. A form after the name of a secret is.
SHORTEST = 4
# Values shorter than this are looked for as whole words.
WHOLE_WORD = 6

_KINDS = (
    *("secret", "private key", "authorization", "cookie", "token", "password", "url login", "password hash", "key", "random text"),
    *("local part", "arguments", "value", "path", "message"),
)
MARK = re.compile(r"\[redacted: (?:" + "|".join(_KINDS) + r")\]")

# Names that stand before a secret. What may follow such a word within a name is short, so that password_file is none.
_NAMES = (
    r"(?<!no)password|(?<!no)(?<!/)(?<!/g)(?<!/ch)passwd|passphrase|passcode|(?<![a-z])pass|(?<![a-z])pwd|secret|token|(?<![a-z])otp|totp|credentials?"
    r"|(?:api|access|secret|private|encryption|signing|account|auth|hmac|master|session)[_-]?key|session[_-]?id|sessid"
)
_SUFFIX = r"(?:[_-]?(?:hash|hmac|value|base64|b64|hex|old|new|current|confirm(?:ation)?|[0-9]{1,3}))?s?"
SECRET_NAME = re.compile(rf"(?i)(?:{_NAMES}){_SUFFIX}\Z")
_TRIGGERS = ("pass", "pwd", "secret", "token", "otp", "credential", "key", "session", "sessid")
# What stands after such a name and is no secret: settings, references, and what was redacted before.
_HARMLESS = (
    r"(?:null|none|true|false|yes|no|on|off|scram-sha-256|md5|required|optional|disabled|enabled|\*+|x{3,}|-|<[a-z ]{1,20}>"
    r"|\$\{?[A-Za-z_]{1,64}\}?|/(?:etc|run|var|srv|usr|opt|home|root|tmp)/[A-Za-z0-9_./@-]{1,256})"
)
HARMLESS = re.compile(rf"(?i){_HARMLESS}\Z")

_ANSI = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,16}[@-~]|\][^\x07\x1b\n]{0,4096}(?:\x07|\x1b\\)|[@-Z\\^_])")
# They are not seen, and part what belongs together.
_UNSEEN = re.compile("[\x00\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]+")
_CONTROL = re.compile("[\x01-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def harmless(data: bytes) -> str:
    """Text of any bytes that no terminal and no program takes for an order; bytes that are no UTF-8 stay readable as C(\\xNN)."""
    text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    text = _UNSEEN.sub("", text)
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}" if ord(match.group()) < 256 else f"\\u{ord(match.group()):04x}", text)


# --- known values -----------------------------------------------------------------------------------------------------


class Secret(t.NamedTuple):
    """A value and the name by which people know it; the name may be told, the value not."""

    name: str
    value: str


class _Needle(t.NamedTuple):
    literal: str  # stands in every form of it; empty when there is none
    folded: bool  # whether the literal is looked for in lower case
    pattern: t.Pattern[str]
    extend: str  # further characters that belong to it when they stand beside it


_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_="
_HEX = "0123456789abcdefABCDEF"
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&(?:apos|#39);"}


def pieces(value: str) -> t.List[str]:
    """What is looked for of a value: its lines, as logs break at them. Of a PEM block it is the body of a private key."""
    lines = [line.strip() for line in harmless(value.encode("utf-8", "surrogatepass")).splitlines()]
    lines = [line for line in lines if line]
    if "-----BEGIN" in value:
        return [line for line in lines if len(line) >= 24 and not line.startswith("-----")] if "PRIVATE KEY" in value else []
    if len(lines) > 1:
        # A short line of a longer text, such as a bracket, is no secret.
        lines = [line for line in lines if len(line) >= 8]
    return list(dict.fromkeys(lines + [part for line in lines for part in _parts_of_url(line)]))


def _parts_of_url(value: str) -> t.List[str]:
    """What of an address is secret by itself: the address of a chat's webhook is its password."""
    if "://" not in value or any(character.isspace() for character in value):
        return []
    try:
        parts = urllib.parse.urlsplit(value)
        password = urllib.parse.unquote(parts.password or "")
    except ValueError:
        return []
    found = [f"{parts.path}?{parts.query}" if parts.query else parts.path, password]
    found += [part for part in re.split(r"[/&=?]", f"{parts.path}?{parts.query}") if len(part) >= 12]
    return [part for part in found if len(part.strip("/?")) >= WHOLE_WORD]


def _needles(value: str) -> t.List[_Needle]:
    if len(value) < SHORTEST:
        return []
    written = _written(value)
    if len(value) < WHOLE_WORD:
        written = rf"(?<![A-Za-z0-9]){written}(?![A-Za-z0-9])"
    data = value.encode("utf-8")
    found = [
        _Needle(_anchor(value), False, re.compile(written), ""),
        _Needle(data.hex(), True, re.compile(data.hex(), re.IGNORECASE), _HEX),
    ]
    forms = dict.fromkeys((data, json.dumps(value)[1:-1].encode(), urllib.parse.quote(value, safe="").encode()))
    for core in dict.fromkeys(core for form in forms for core in _cores(form)):
        found.append(_Needle(_anchor(core), False, re.compile(_written(core, "+/")), _BASE64))
    return found


def _cores(data: bytes) -> t.Iterator[str]:
    """What base64 makes of data, whatever stands before and after it: the characters that depend on nothing else."""
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + data).decode("ascii")
        core = encoded[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
        if len(core) >= WHOLE_WORD:
            yield core


def _anchor(value: str) -> str:
    """The longest run of letters and digits, which all encodings leave as it is."""
    return max(re.findall(r"[A-Za-z0-9]+", value), key=len, default="")


def _written(value: str, sixty_two: str = "") -> str:
    """A pattern for all ways to write a value that leave letters and digits as they are: quoted, escaped, percent-encoded."""
    found = []
    for match in re.finditer(r"([A-Za-z0-9]+)|(\\+)|(.)", value, re.DOTALL):
        plain, backslashes, other = match.groups()
        if plain:
            found.append(plain)
        elif backslashes:
            count = len(backslashes)
            found.append(rf"(?:\\{{{count},{4 * count}}}|(?:%(?:25)?5[Cc]|\\[xu](?:00)?5[Cc]){{{count}}})")
        else:
            found.append(_ways(other, sixty_two))
    return "".join(found)


def _ways(character: str, sixty_two: str) -> str:
    data, code = character.encode("utf-8", "surrogatepass"), ord(character)
    percent = "".join(f"%(?:25)?{_any_case(f'{byte:02x}')}" for byte in data)
    escaped = "".join(rf"\\{{1,2}}x{_any_case(f'{byte:02x}')}" for byte in data)
    utf16 = character.encode("utf-16-be", "surrogatepass").hex()
    json_form = "".join(rf"\\{{1,2}}u{_any_case(utf16[at : at + 4])}" for at in range(0, len(utf16), 4))
    ways = [rf"\\{{0,3}}{re.escape(character)}", percent, escaped, json_form, rf"&\#0?(?:{code}|[xX]{_any_case(f'{code:x}')});"]
    if 127 < code < 256:
        ways.append(rf"\\x{_any_case(f'{code:02x}')}")
    if character == " ":
        ways.append(r"\+")
    if character == "'":
        ways[:0] = [r"'\\''", "'\"'\"'", "''", r"\\'\\''"]
    if character == '"':
        ways[:0] = ['""']
    if character in _HTML:
        ways.append(_HTML[character])
    if character in sixty_two:
        ways.append({"+": "-", "/": "_"}[character])
    return f"(?:{'|'.join(ways)})"


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def encodings(value: str) -> t.Iterator[str]:
    """The usual ways to write a value, as the programs' own libraries write them. The last look at a bundle asks for these."""
    data = value.encode("utf-8", "surrogatepass")
    yield value
    for safe in ("", "/", "/:@"):
        yield urllib.parse.quote(value.encode("utf-8", "surrogatepass"), safe=safe)
    yield urllib.parse.quote_plus(data)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield json.dumps(value)[1:-1].replace("/", "\\/")
    yield json.dumps(json.dumps(value))[3:-3]
    yield value.replace("'", "'\"'\"'")
    yield value.replace("'", "'\\''")
    yield value.replace("'", "''")
    yield re.sub(r"([^A-Za-z0-9_./:@%+=,-])", r"\\\1", value)
    yield data.hex()
    yield data.hex().upper()
    for text in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        if len(value) >= WHOLE_WORD:
            yield text.decode("ascii").rstrip("=")


class LastLook:
    """Says which secrets still stand in redacted text. It searches in another way than the Redactor does."""

    def __init__(self, secrets: t.Iterable[Secret]) -> None:
        self._forms: t.Dict[str, t.Tuple[str, bool]] = {}
        for name, value in secrets:
            for piece in pieces(value):
                if len(piece) >= SHORTEST:
                    self._forms.update(dict.fromkeys(encodings(piece), (name, len(piece) < WHOLE_WORD)))

    def names(self, text: str) -> t.List[str]:
        """The names of those that are found, each once."""
        text = MARK.sub("\n", text)
        found = [
            name
            for form, (name, whole) in self._forms.items()
            if form in text and (not whole or re.search(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", text))
        ]
        return list(dict.fromkeys(found))


# --- what secrets look like -------------------------------------------------------------------------------------------


class _Rule(t.NamedTuple):
    kind: str
    triggers: t.Tuple[str, ...]  # in lower case; a line without any of them is not looked at
    pattern: t.Pattern[str]
    replace: t.Callable[[t.Match[str]], t.Optional[str]]  # none: it stays


def mark(kind: str) -> str:
    return f"[redacted: {kind}]"


def _after(kind: str) -> t.Callable[[t.Match[str]], t.Optional[str]]:
    """Keeps the first group and replaces the rest."""

    def replace(match: t.Match[str]) -> t.Optional[str]:
        return match.group(1) + mark(kind)

    return replace


def _whole(kind: str) -> t.Callable[[t.Match[str]], t.Optional[str]]:
    return lambda _match: mark(kind)


def _basic(match: t.Match[str]) -> t.Optional[str]:
    try:
        decoded = base64.b64decode(match.group(2) + "==")
    except (binascii.Error, ValueError):
        return None
    return match.group(1) + mark("authorization") if b":" in decoded else None


def _assigned(match: t.Match[str]) -> t.Optional[str]:
    before, quote, quoted, bare = match.groups()
    value = quoted if quoted is not None else bare
    known = MARK.match(value)
    value = (value[known.end() :] if known else value).rstrip(",;)}]'\"")
    if not value or HARMLESS.match(value):
        return None
    return before + (quote or "") + mark("password")


def _line(match: t.Match[str]) -> t.Optional[str]:
    value = match.group(2).strip().rstrip(",;").strip("\"'")
    return None if not value or HARMLESS.match(value) else match.group(1) + mark("password")


def _mail(match: t.Match[str]) -> t.Optional[str]:
    at, domain = match.groups()
    # Names of units and of algorithms look like addresses.
    kind = domain.rpartition(".")[2].lower()
    if kind in _UNITS or domain.lower() in ("openssh.com", "libssh.org"):
        return None
    return mark("local part") + at + domain


_UNITS = ("service", "timer", "socket", "slice", "target", "path", "mount", "scope", "device", "swap")
# Up to the quote that it began with, or to the next space.
_WORD = rf"(?:{MARK.pattern}|[^\s\"'])\S{{0,65535}}"
_VALUE = rf"(?:(\\{{0,3}}[\"'])((?:(?!\2)(?:\\[^\n]|[^\n])){{1,65536}})|({_WORD}))"

_LOCAL = r"A-Za-z0-9.!#$%&'*+/=?^_`{|}~\u00c0-\uffff-"

_RULES = (
    _Rule(
        "authorization",
        ("authorization",),
        re.compile(r"(?i)((?:proxy-)?authorization[\"']?\s{0,4}(?:[:=]|%3a)\s{0,4}[\"']?)[^\"'\n]{1,65536}"),
        _after("authorization"),
    ),
    _Rule(
        "cookie",
        ("cookie",),
        re.compile(r"(?i)((?<![a-z])(?:set-)?cookie2?[\"']?\s{0,4}(?:[:=]|%3a)\s{0,4}[\"']?)[^\"'\n]{1,65536}"),
        _after("cookie"),
    ),
    _Rule("token", ("bearer",), re.compile(r"(?i)(\bbearer\s{1,4})[A-Za-z0-9._~+/=-]{16,}"), _after("token")),
    _Rule("authorization", ("basic",), re.compile(r"(?i)(\bbasic\s{1,4})([A-Za-z0-9+/]{8,}={0,2})"), _basic),
    _Rule("url login", ("://",), re.compile(r"(://)[^\s/\"'<>]{1,512}(?=@)"), _after("url login")),
    _Rule(
        "password hash", ("scram-sha-",), re.compile(r"(?i)SCRAM-SHA-(?:1|256|512)\$[0-9]{1,8}:[^\s\"',;]{1,1024}"), _whole("password hash")
    ),
    _Rule(
        "password hash",
        ("$",),
        re.compile(r"\$(?:1|2[abxy]?|5|6|7|8|9|y|gy|apr1|P|H|argon2(?:id?|d)|scrypt|pbkdf2[A-Za-z0-9-]{0,20})\$[^\s:\"',;]{8,1024}"),
        _whole("password hash"),
    ),
    _Rule("password hash", ("md5",), re.compile(r"\bmd5[0-9a-f]{32}\b"), _whole("password hash")),
    _Rule("password hash", ("sha",), re.compile(r"\{S?SHA(?:256|512)?\}[A-Za-z0-9+/=]{8,}"), _whole("password hash")),
    _Rule(
        "token", ("eyj",), re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), _whole("token")
    ),
    _Rule("private key", ("age-secret-key-",), re.compile(r"(?i)AGE-SECRET-KEY-[A-Z0-9-]{8,}"), _whole("private key")),
    # A key of WireGuard is 32 bytes in base64.
    _Rule(
        "key",
        ("=",),
        re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=(?![A-Za-z0-9=])"),
        _whole("key"),
    ),
    _Rule(
        "token",
        ("akia", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xox", "sk_live_", "aiza"),
        re.compile(
            r"\b(?:AKIA[0-9A-Z]{16}|gh[pos]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{8,}|sk_live_\w{8,}|AIza[\w-]{30,})"
        ),
        _whole("token"),
    ),
    # Audit messages hold arguments of programs, partly in hexadecimal digits.
    _Rule(
        "arguments",
        ("proctitle=", "cmd=", " a0=", " a1="),
        re.compile(r"(?<=[ :])((?:proctitle|cmd|a[0-9]{1,3})=)(?:\"[^\"\n]{0,65536}\"?|" + _WORD + ")"),
        _after("arguments"),
    ),
    # A line of a configuration, whose value may have spaces.
    _Rule(
        "password",
        _TRIGGERS,
        re.compile(
            rf"(?im)^([ \t]{{0,64}}(?:export |- )?[a-z0-9_.-]{{0,64}}?(?:{_NAMES}){_SUFFIX}[ \t]{{0,16}}[:=][ \t]{{0,16}})(\S[^\n]*)"
        ),
        _line,
    ),
    # name=value, "name": "value", name%3Dvalue, PASSWORD 'value' of SQL.
    _Rule(
        "password",
        _TRIGGERS,
        re.compile(
            rf"(?i)((?:(?:{_NAMES}){_SUFFIX}(?:\\{{0,3}}[\"']|%22)?\]?[ \t]{{0,16}}(?:=>|:=|[:=]|%3[ad])[ \t]{{0,16}}(?:%22)?)"
            rf"|\bpassword[ \t]{{1,4}}(?=\\{{0,3}}[\"'])){_VALUE}"
        ),
        _assigned,
    ),
    # What a program is told as --name value.
    _Rule(
        "password",
        _TRIGGERS,
        re.compile(rf"(?i)((?<![a-z0-9_-])--?[a-z0-9-]{{0,40}}?(?:{_NAMES}){_SUFFIX}[ \t]{{1,16}}){_VALUE}"),
        _assigned,
    ),
    _Rule(
        "local part",
        ("@", "%40"),
        re.compile(
            rf"(?<![{_LOCAL}])[{_LOCAL}]{{1,256}}(@|%40)"
            r"((?:[a-zA-Z0-9\u00c0-\uffff][a-zA-Z0-9\u00c0-\uffff-]{0,62}\.){1,8}"
            r"(?:xn--[a-zA-Z0-9-]{2,59}|[a-zA-Z\u00c0-\uffff]{2,24})(?![a-zA-Z0-9]))"
        ),
        _mail,
    ),
)

_RUN = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,}={0,2}")
_LETTERS = re.compile(r"[a-z]{4,}\Z")


def looks_random(run: str) -> bool:
    """Whether a run of at least 24 characters is nothing that people or programs call something: many letters of both kinds and digits."""
    if len(run) > 4096:
        return not run.islower() and not run.isupper()
    lower = upper = digits = 0
    for character in run:
        lower += character.islower()
        upper += character.isupper()
        digits += character.isdigit()
    if lower < 3 or upper < 3 or digits < 3:
        return False
    # A path has words between its slashes.
    return not any(_LETTERS.match(part) for part in run.split("/")[:-1])


_KEY_EDGE = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_WORD = re.compile(r"[A-Za-z0-9+/=]{1,512}\Z")
_KEY_LINES = 200


class Redactor:
    """Knows values and what secrets look like.

    Args:
        secrets: values that are taken out wherever they stand, in any usual encoding.
    """

    def __init__(self, secrets: t.Iterable[Secret] = ()) -> None:
        found: t.Dict[str, None] = {}
        self.too_short: t.List[str] = []
        for name, value in secrets:
            for piece in pieces(value):
                if len(piece) < SHORTEST:
                    self.too_short.append(name)
                found[piece] = None
        self._needles = [needle for value in found for needle in _needles(value)]

    def stream(self) -> Stream:
        return Stream(self)

    def redact(self, text: str) -> str:
        """Redacted text, as one piece."""
        return self.stream().feed(text)

    def spans(self, text: str) -> t.List[t.Tuple[int, int]]:
        """Where known values stand; spans that touch or overlap are one."""
        lower = text.lower()
        # Lower case of some letters is longer: places in it are not those of the text, which is searched itself.
        found = []
        for literal, folded, pattern, extend in self._needles:
            if literal not in (lower if folded else text):
                continue
            for match in pattern.finditer(text):
                start, end = match.span()
                if extend:
                    while start and text[start - 1] in extend and match.start() - start < 4096:
                        start -= 1
                    while end < len(text) and text[end] in extend and end - match.end() < 4096:
                        end += 1
                found.append((start, end))
        found.sort()
        merged: t.List[t.Tuple[int, int]] = []
        for start, end in found:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged


class Stream:
    """One text on its way through a Redactor: pieces that end with a line go in, redacted ones come out.

    Attributes:
        counts: how often each kind was redacted.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._inside = 0  # lines that a private key without an end may still have
        self.counts: t.Counter[str] = collections.Counter()

    def feed(self, text: str) -> str:
        text = self._keys(text)
        text = self._known(text)
        lower = text.lower()
        for rule in _RULES:
            if any(trigger in lower for trigger in rule.triggers):
                text = self._apply(rule, text)
        return self._random(text)

    def _known(self, text: str) -> str:
        found, at = [], 0
        for start, end in self._redactor.spans(text):
            found += [text[at:start], mark("secret")]
            at = end
            self.counts["secret"] += 1
        return "".join([*found, text[at:]]) if found else text

    def _apply(self, rule: _Rule, text: str) -> str:
        def replace(match: t.Match[str]) -> str:
            wanted = rule.replace(match)
            if wanted is None:
                return match.group()
            self.counts[rule.kind] += 1
            return wanted

        # Only lines that hold a trigger are worth the pattern.
        found, at = [], 0
        for start, end in _lines_with(text, rule.triggers):
            found += [text[at:start], rule.pattern.sub(replace, text[start:end])]
            at = end
        return "".join([*found, text[at:]])

    def _random(self, text: str) -> str:
        def replace(match: t.Match[str]) -> str:
            run = match.group()
            # A fingerprint of a key tells which key it is, and nothing else.
            if text[max(0, match.start() - 7) : match.start()] == "SHA256:" or not looks_random(run):
                return run
            self.counts["random text"] += 1
            return mark("random text")

        return _RUN.sub(replace, text)

    def _keys(self, text: str) -> str:
        """Without private keys, also those whose begin or end is not there."""
        if not self._inside and "PRIVATE KEY" not in text:
            return text
        found: t.List[str] = []
        for line in text.split("\n"):
            if self._inside:
                edge = _KEY_END.search(line)
                if not edge and _of_key(line):
                    self._inside -= 1
                    continue
                self._inside = 0
                line = line[edge.end() :] if edge else line
            found.append(self._edges(line, found))
        return "\n".join(found)

    def _edges(self, line: str, before: t.List[str]) -> str:
        """A line without what is between the edges of keys in it; takes the lines of a key away whose begin is not there."""
        found, at = [], 0
        for edge in _KEY_EDGE.finditer(line):
            if edge.start() < at:
                continue
            self.counts["private key"] += 1
            if edge.group(1) == "END":
                # What stands before it on its own line: the time and the program, or the key's last words.
                found.append(re.sub(r"\S*[A-Za-z0-9+/=]{16}\S*\Z", "", line[at : edge.start()]))
                last = True
                while before and _of_key(before[-1], last) and before[-1]:
                    before.pop()
                    last = False
            else:
                found.append(line[at : edge.start()])
            found.append(mark("private key"))
            at = edge.end()
            if edge.group(1) == "BEGIN":
                end = _KEY_END.search(line, at)
                if not end:
                    self._inside = _KEY_LINES
                    return "".join(found)
                at = end.end()
        return "".join([*found, line[at:]])


def _of_key(line: str, last: bool = True) -> bool:
    """Whether a line may be one inside a private key, whatever a log has put before it. The last one of a key may be short."""
    words = line[-512:].split()
    if not words or "Proc-Type:" in words or "DEK-Info:" in words:
        return True
    word = words[-1]
    if not _KEY_WORD.match(word) or (word.isalpha() and word[1:].islower()):
        return False
    return last or len(word) >= 32


def _lines_with(text: str, triggers: t.Sequence[str]) -> t.List[t.Tuple[int, int]]:
    """The lines, as spans, that hold one of the triggers in any case; lines that follow each other are one span."""
    lower = text.lower()
    if len(lower) != len(text):
        return [(0, len(text))]
    spans = set()
    for trigger in triggers:
        at = lower.find(trigger)
        while at >= 0:
            start = lower.rfind("\n", 0, at) + 1
            end = lower.find("\n", at)
            end = len(text) if end < 0 else end + 1
            spans.add((start, end))
            at = lower.find(trigger, end)
    merged: t.List[t.Tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def whole_lines(stream: t.Iterable[bytes], size: int = 1 << 20) -> t.Iterator[str]:
    """Pieces of about C(size) characters that end with a line, from pieces of any kind."""
    waiting: t.List[bytes] = []
    length = 0
    for data in stream:
        waiting.append(data)
        length += len(data)
        if length >= size and b"\n" in data:
            whole, _newline, rest = b"".join(waiting).rpartition(b"\n")
            yield harmless(whole + b"\n")
            waiting, length = [rest], len(rest)
    if length:
        yield harmless(b"".join(waiting))
