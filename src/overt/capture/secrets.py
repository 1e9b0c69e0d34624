"""No secret that can be told by its name or by its shape passes through here unredacted.

Both tests are needed: ``password='hunter2'`` is known only by its name, a GitHub token pasted into a path only by
its shape. Where a word is secret in one trade and harmless in another (``token``), its neighbours decide, because a
tracker that hides ``max_tokens`` or ``pad_token`` is switched off. In doubt, text is redacted: a parameter
shown as ``[redacted]`` costs a question, a leaked key costs a rotation. The Python code in a diff is what a run is
rebuilt from: there an expression under a secret's name holds no secret and stays, and what is hidden leaves valid code.

Every pattern runs in linear time. Each either starts with a literal or at the beginning of a word, and consumes what it
scans (possessive quantifiers): a megabyte of hostile text takes about half a second. Redacting twice changes nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

REDACTED = "[redacted]"

# --- by name ----------------------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")

_SECRET_WORDS = _words(
    "password passwords passwd passphrase passcode pwd secret secrets credential credentials bearer jwt "
    "authorization cookie cookies apikey apikeys"
)
# Written as one word: PGPASSWORD, dbpassword, clientsecret, accesstoken.
_SECRET_ENDINGS = (
    *("password", "passwd", "passphrase", "secret", "apikey", "secretkey", "accesskey", "privatekey"),
    *("authtoken", "accesstoken", "apitoken", "refreshtoken"),
)
_KEY_OWNERS = _words(
    "api access private secret signing encryption account storage shared master ssh auth license subscription app "
    "consumer deploy service pgp gpg hmac aes rsa fernet webhook"
)
_PASS_OWNERS = _words(
    "db database user username smtp mail email sql mysql postgres postgresql pg redis mongo ftp ssh admin root "
    "login proxy http https basic auth"
)
_TOKEN_OWNERS = _words("api access auth bearer refresh session secret oauth personal")
# A token that is a piece of text or of an image, not a credential.
_VOCABULARY = _words(
    "pad padding cls eos bos sos eot eod unk unknown sep separator mask masked special start stop begin end first "
    "last next prev previous max min n num use per class dist distill distillation register prompt query time "
    "word sub subword text img image video audio vision think thinking additional extra oov blank prefix suffix "
    "decoder encoder newline nl space lang language fim new add with without no is has drop forced content "
    "summary mean avg"
)
# Words that may follow a token's name and leave it a credential: GITHUB_TOKEN_PROD, token_value.
_AFTER_TOKEN = _words(
    "prod production dev development staging stage test live default old new backup primary secondary value "
    "string str env header secret key"
)
# A property of a secret, not the secret: password_length, secret_type.
_MEASURES = _words("length len size count policy pattern type ttl expiry expires timeout")


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret, judged by whole words.

    Parameters
    ----------
    name : str
        A parameter, variable, option or header name in any spelling: ``db_password``, ``clientSecret``, ``--api-key``,
        ``auth.token``, ``clf__api_key``. The last part of a dotted or double-underscored name is also judged alone.

    Examples
    --------
    >>> [is_secret_name(n) for n in ("api_key", "GITHUB_TOKEN", "max_tokens", "tokenizer", "secretary")]
    [True, True, False, False, False]
    """
    last = re.split(r"__|\.", name.strip("_."))[-1]
    return _is_secret(name) or (last != name and _is_secret(last))


def _is_secret(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if not words or words[-1] in _MEASURES:
        return False
    if any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in words):
        return True
    if words[-1] == "auth":
        return True
    pairs = list(pairwise(words))
    if any(second in ("key", "keys") and first in _KEY_OWNERS for first, second in pairs):
        return True
    if any(second == "pass" and first in _PASS_OWNERS for first, second in pairs):
        return True
    if any(second == "tokens" and first in _TOKEN_OWNERS for first, second in pairs):
        return True
    return _ends_in_a_token(words)


def _ends_in_a_token(words: list[str]) -> bool:
    for position, word in enumerate(words):
        if word == "token" and all(after in _AFTER_TOKEN for after in words[position + 1 :]):
            return position == 0 or words[position - 1] not in _VOCABULARY
    return False


# --- by shape ---------------------------------------------------------------------------------------------------------

_PEM_LABEL = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PEM = re.compile(
    rf"-----BEGIN {_PEM_LABEL}"
    # up to its END line, where a diff's own "-" may stand in front; else the key's lines that follow
    rf"(?:(?:[^-]|-(?!----))*+-{{5,6}}END {_PEM_LABEL}|(?:[A-Za-z0-9+/=]{{24,}}+|\\[nr]|[\s\"',+])*+)"
)
# The greedy password runs to the last "@" of the authority: passwords with a raw "@" are common and must go whole.
_USERINFO = re.compile(r"://([^\s/?#@:\"'<>]*+)(?:(:)([^\s/?#\"'<>]*))?@")
_AWS_PAIR = re.compile(
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"(?:[\s,:;|\"']{1,8}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=]))?"
)
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"gh[pousr]_[A-Za-z0-9]{16,}+"
    r"|github_pat_\w{20,}+"
    r"|glpat-[\w-]{16,}+"
    r"|xox[a-z]-[A-Za-z0-9-]{10,}+"
    r"|AIza[\w-]{30,}+"
    r"|ya29\.[\w-]{20,}+"
    r"|hf_[A-Za-z0-9]{20,}+"
    r"|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}+"
    r"|npm_[A-Za-z0-9]{30,}+"
    r"|pypi-[\w-]{40,}+"
    r"|dapi[0-9a-f]{32}"
    r")"
)
_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{5,}+\.[\w-]{5,}+\.[\w-]*+")
_SK = re.compile(r"(?<![A-Za-z0-9])sk-[\w-]{16,}+")
_BEARER = re.compile(r"\b(Bearer[ \t]+)([\w.~+/=-]{8,}+)", re.IGNORECASE)
_SLACK_HOOK = re.compile(r"(hooks\.slack\.com/(?:services|workflows)/)[\w/]+")


def _redact_userinfo(match: re.Match[str]) -> str:
    user, colon, password = match.group(1), match.group(2), match.group(3)
    if colon and password not in ("", "x-oauth-basic"):
        return f"://{user}:{REDACTED}@"
    if user == "" or user in ("git", "hg"):  # ssh://git@host: the account that everybody shares
        return match.group()
    return f"://{REDACTED}@"


def _redact_sk(match: re.Match[str]) -> str:
    # OpenAI's and Anthropic's keys hold a long random run, or digits with capitals; sk-learn-some-plugin does not.
    body = match.group()[3:]
    is_random = re.search(r"[A-Za-z0-9]{16}", body) or (re.search(r"[0-9]", body) and re.search(r"[A-Z]", body))
    return REDACTED if is_random else match.group()


def _redact_bearer(match: re.Match[str]) -> str:
    is_prose = match.group(2).isalpha() and match.group(2).islower() and len(match.group(2)) < 20
    return match.group() if is_prose else match.group(1) + REDACTED


# --- by assignment ----------------------------------------------------------------------------------------------------

_QUOTE = r"\\?\"|\\?'|`|&quot;|&\#x27;|&\#39;|&\#34;"
_ASSIGNED = re.compile(
    rf"""
    (?<![\w.-]) (?P<name>[\w.-]++)
    (?P<quoted>{_QUOTE})? \]? [ \t]{{0,32}}+
    (?: :[ \t]{{0,8}}+ (?:Optional|Final|ClassVar)?\[?[A-Za-z_][\w.]{{0,40}}+\]?(?:[ ]?\|[ ]?None)? [ \t]{{0,8}}+=(?!=)
      | :=|==|=>|!=|=|:
      | (?P<comma>,)
    )
    [ \t]{{0,32}}+ (?:\([ \t]*+\n[+ -]?[ \t]*+)?
    """,
    re.VERBOSE,
)
_VALUE = re.compile(
    rf"""
    [bBrRfFuU]{{0,2}}
    (?: (?P<triple>\"\"\"|\'\'\') (?P<long>(?:(?!(?P=triple))[\s\S])*+) (?P<closing>(?P=triple))?
      | (?P<quote>{_QUOTE}) (?P<body>(?:(?!(?P=quote))(?:\\[^\n]|[^\n\\]))*+)
    )
    | (?P<bare>
        \[redacted\]
      | [\[({{] [^\n\])}}]*+ [\])}}]?
      | (?:(?:Bearer|Basic|Token|Digest|ApiKey|AWS4-HMAC-SHA256)[ \t]+)?
        # what usually ends a value goes with it where the text runs on: PASSWORD=a,b)c
        (?: \[redacted\] | [^\s\"'`<>,;&)\]}}] | [,;&](?!\s|$|[\w.-]{{1,64}}+\s?[=:]|\#?\w{{1,6}};) | [)\]}}](?=\w) )++
      )
    """,
    re.VERBOSE,
)
_FLAG = re.compile(r"(?<!\S)--(?P<name>[\w.-]++)(?P<between>[ \t]+)(?P<value>(?!-)[^\s\"'<>]++)")
_HTML_CELL = re.compile(
    r"(?P<head><td class=\"param\">(?P<name>(?:[^<]|<(?!/?td))*+)</td>\s*+<td class=\"value\">)(?P<value>[^<]++)"
)
_TAG = re.compile(r"<[^<>]*+>")
_ELEMENT = re.compile(r"<(?P<name>[\w.:-]{1,80}+)>(?P<value>[^<>]++)</(?P=name)>")
_BLOCK_HEADER = re.compile(r"(?:- )?[\"']?(?P<name>[\w.-]{1,80}+)[\"']?:[ \t]*+(?:[|>][-+0-9]{0,2})?[ \t\r]*+")
_NAMED_LINE = re.compile(r"(?:- )?[\"']?[\w.-]++[\"']?[ \t]*+[:=]|[\])}]|#")
_STEMS = ("pass", "pwd", "secret", "credential", "bearer", "jwt", "auth", "cookie", "key", "token")
_HARMLESS = _words(
    "none true false null nil nan undefined str string bytes int float bool any object optional lambda ..."
)
# Code that fetches a secret is not one.
_CODE = re.compile(
    r"(?:os\.)?(?:environ|getenv)\b|getpass\b|(?:self|args|config|cfg|settings|options|kwargs|request|secrets)\b[.\[]"
    r"|str\||Optional\[|\$\{?\w+\}?$|\*+$"
)


_TOKEN = re.compile(r"\"(?:[^\"\\\n]|\\.)*+\"|'(?:[^'\\\n]|\\.)*+'|[(\[{)\]}]")
_COLON = re.compile(r"[ \t]*+:")


_JOINED = re.compile(r"[ \t]{0,32}+(?:\+[ \t]{0,32}+)?")
_JOINED_BELOW = re.compile(r"[ \t]{0,32}+(?:\n[+ -]?[ \t]*+)?(?:\+[ \t]{0,32}+)?")


def _redact_assignments(text: str) -> str:
    # Not re.sub: an assignment that is no secret may hold one (note: "password=…"), so the search resumes at its value.
    pieces: list[str] = []
    done = position = 0
    python, brackets = _Python(text), _Brackets(text)
    while assigned := _ASSIGNED.search(text, position):
        position = assigned.end("name")
        if not is_secret_name(assigned["name"]):
            continue
        value = _VALUE.match(text, assigned.end())
        hidden = _secret_span(value, assigned) if value else None
        if value and hidden and value["bare"]:
            for start, end in brackets.texts_over_lines(hidden[0]):
                pieces += (text[done:start], REDACTED)
                done = position = end
            whole = python.narrowed(hidden, assigned) if done < hidden[0] else None
            hidden = whole and (whole[0], max(whole[1], brackets.closing_on_line(whole[0])))
        while hidden is not None:
            pieces += (text[done : hidden[0]], REDACTED)
            done = position = hidden[1]
            value = _next_part(value, assigned) if value else None
            hidden = _secret_span(value, assigned) if value else None
    return "".join((*pieces, text[done:]))


class _Brackets:
    """The brackets of a list or mapping that is a secret's value, so that everything in them is one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._unclosed_left = 10  # each was looked for up to the text's end: more would take quadratic time

    def closing_on_line(self, start: int) -> int:
        """Where the bracket at ``start`` is closed; ``start`` if that is no bracket, or closed on another line."""
        end = self._closing(start)
        return start if "\n" in self._text[start:end] else end

    def texts_over_lines(self, start: int) -> list[tuple[int, int]]:
        """The quoted texts in brackets that go over several lines, which a diff needs all of; none for others."""
        end = self._closing(start)
        if "\n" not in self._text[start:end]:
            return []
        tokens = _TOKEN.finditer(self._text, start, end)
        return [(t.start() + 1, t.end() - 1) for t in tokens if len(t[0]) > 2 and not _COLON.match(self._text, t.end())]

    def _closing(self, start: int) -> int:
        if self._text[start] not in "([{" or not self._unclosed_left:
            return start
        depth = 0
        for token in _TOKEN.finditer(self._text, start):
            depth += 1 if token[0] in "([{" else -1 if token[0] in ")]}" else 0
            if depth == 0:
                return token.end()
        self._unclosed_left -= 1
        return start


def _next_part(value: re.Match[str], assigned: re.Match[str]) -> re.Match[str] | None:
    """The literal that is joined to this one: ``"a" "b"``, ``"a" + "b"``."""
    closing = value["closing"] or value["quote"]
    if not closing or not value.string.startswith(closing, end := value.end() - len(value["closing"] or "")):
        return None
    joint = _JOINED_BELOW if "\n" in assigned.group() else _JOINED
    joined = joint.match(value.string, end + len(closing))
    following = _VALUE.match(value.string, joined.end()) if joined else None
    return following if following and not following["bare"] else None


def _secret_span(value: re.Match[str], assigned: re.Match[str]) -> tuple[int, int] | None:
    kind = "long" if value["triple"] else "body" if value["quote"] else "bare"
    if assigned["comma"] and not (assigned["quoted"] and kind != "bare"):
        return None  # f(token, 1): an argument list, where ("token", "…") would be a pair
    content = value[kind]
    if not content:
        return None
    if kind == "bare":
        names = (assigned["name"], assigned["name"].rpartition(".")[2])
        if content.lower() in _HARMLESS or content in names or _CODE.match(content):
            return None
    return value.span(kind)


# --- in Python code ---------------------------------------------------------------------------------------------------

_PYTHON_FILE = re.compile(r"^diff --git [^\n]*\.pyi?\"?$(?:\n(?!diff --git )[^\n]*+)*+", re.MULTILINE)
_HUNK = re.compile(r"^@@ [^\n]*+(?:\n(?!@@ )[^\n]*+)*+", re.MULTILINE)
_TRIPLE = re.compile(r"\"\"\"|\'\'\'")
_LITERAL = re.compile(r"\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'")
_EXPRESSION = re.compile(r"(?:[A-Za-z_]\w*+\.)*+[A-Za-z_]\w*+[(\[]|(?:not|await|yield)$|-?\d{1,3}(?:\.\d{1,3})?$")
_COMPREHENSION = re.compile(r"(?=.*\w[(\[])[^\"'`]*+")
_LONG_NUMBER = re.compile(r"\d{4}")
_OPENING = re.compile(r"[(\[{]")
_BRACKET = re.compile(r"[(\[{]|[)\]}]|\n")
_REACH = 200  # characters that are looked at on either side of a name: more would take quadratic time


class _Python:
    """The Python in a diff: only there is an unquoted value no text, and what is cut out of a line must leave code."""

    def __init__(self, text: str) -> None:
        self._text = text
        files = list(_PYTHON_FILE.finditer(text)) if "\n@@ " in text else []
        self._files = [bound for file in files for bound in file.span()]
        hunks = [hunk for file in files for hunk in _HUNK.finditer(text, *file.span())]
        self._code = [bound for hunk in hunks for bound in _code_bounds(hunk)]

    def narrowed(self, hidden: tuple[int, int], assigned: re.Match[str]) -> tuple[int, int] | None:
        """``hidden``, an unquoted value, as far as it has to be hidden; None for an expression."""
        start, end = hidden
        if not bisect_right(self._files, start) % 2:
            return hidden
        content = self._text[start:end]
        if content.endswith(":") and self._text.startswith("\n", end):  # if token == end:
            content = content[:-1]
        if content and self._is_code(assigned) and self._is_expression(content, assigned):
            return None
        opening = _OPENING.search(content)
        return start, max(start + len(content), self._closing(start + opening.start()) if opening else 0)

    def _is_expression(self, content: str, assigned: re.Match[str]) -> bool:
        if _LONG_NUMBER.search(content):  # f(20261130): a literal as well
            return False
        if content[0] in "([{":
            start = assigned.end()
            return len(content) == 1 or bool(_COMPREHENSION.fullmatch(self._text, start, self._closing(start)))
        path, _, last = content.rpartition(".")
        is_namesake = last == assigned["name"].rpartition(".")[2] and path.replace(".", "").isidentifier()
        return is_namesake or bool(_EXPRESSION.match(content))

    def _is_code(self, assigned: re.Match[str]) -> bool:
        """Whether a name stands in code; not if in a comment, a string or what may be one."""
        start = assigned.start("name")
        if not bisect_right(self._code, start) % 2:
            return False
        line = self._text.rfind("\n", max(start - _REACH, 0), start) + 1
        if not line:
            return False
        before = self._text[line : start - 1 if assigned["quoted"] else start]
        return not re.search(r"[\"'#`]", _LITERAL.sub("", before))

    def _closing(self, start: int) -> int:
        """Where the bracket at ``start`` is closed; ``start`` if not on its line."""
        depth = 0
        for bracket in _BRACKET.finditer(self._text, start, start + _REACH):
            if bracket.group() == "\n":
                break
            depth += 1 if bracket.group() in "([{" else -1
            if depth == 0:
                return bracket.end()
        return start


def _code_bounds(hunk: re.Match[str]) -> list[int]:
    """Where code starts and ends by turns: outside of the triple quotes, which may hold any text."""
    quotes = list(_TRIPLE.finditer(hunk.string, *hunk.span()))
    if len(quotes) % 2:  # one begins or ends outside of the hunk
        return []
    edges = [quote.end() if number % 2 else quote.start() for number, quote in enumerate(quotes)]
    return [hunk.start(), *edges, hunk.end()]


def _redact_element(match: re.Match[str]) -> str:
    return f"<{match['name']}>{REDACTED}</{match['name']}>" if is_secret_name(match["name"]) else match.group()


def _redact_blocks(text: str) -> str:
    """Values on the lines below a name, as YAML writes them; what has a name of its own there is judged by that."""
    mark = 1 if "\n@@ " in text else 0  # each line of a diff begins with one
    lines = text.split("\n")
    outer: int | None = None
    for number, line in enumerate(lines):
        content = line[mark:].lstrip(" \t")
        depth = len(line) - mark - len(content)
        if outer is not None and content and depth <= outer:
            outer = None
        if outer is not None and content and not _NAMED_LINE.match(content):
            lines[number] = line[: mark + depth] + REDACTED
        elif (header := _BLOCK_HEADER.fullmatch(content)) and is_secret_name(header["name"]):
            outer = depth
    return "\n".join(lines)


def _redact_flag(match: re.Match[str]) -> str:
    if not is_secret_name(match["name"]) or _is_negated(match["name"]):
        return match.group()
    return f"--{match['name']}{match['between']}{REDACTED}"


def _redact_cell(match: re.Match[str]) -> str:
    words = _TAG.sub(" ", match["name"]).split()
    if not words or not is_secret_name(words[0]) or match["value"].strip().lower() in _HARMLESS:
        return match.group()
    return match["head"] + REDACTED


def redact(text: str) -> str:
    """Free text (a diff, a traceback, HTML, a command) with every secret in it replaced by ``[redacted]``.

    Recognised by shape: passwords in URLs, AWS, GitHub, GitLab, OpenAI, Anthropic, Slack, Google, Hugging Face, Stripe
    and Databricks keys, JWTs, PEM private keys and bearer headers. Recognised by name: the value of any assignment
    (``name = value``, ``"name": "value"``, ``--name value``, a table cell) whose :func:`is_secret_name` is true.

    Not guaranteed: a secret without a telling name or shape is not found.

    Examples
    --------
    >>> redact("postgresql://ann:hunter2@db/prod  max_tokens=512")
    'postgresql://ann:[redacted]@db/prod  max_tokens=512'
    """
    if "-----BEGIN " in text:
        text = _PEM.sub(REDACTED, text)
    if "://" in text:
        text = _USERINFO.sub(_redact_userinfo, text)
    text = _AWS_PAIR.sub(REDACTED, text)
    text = _SHAPES.sub(REDACTED, text)
    text = _SK.sub(_redact_sk, text)
    text = _JWT.sub(REDACTED, text)
    lowered = text.lower()
    if "bearer" in lowered:
        text = _BEARER.sub(_redact_bearer, text)
    if "hooks.slack.com" in lowered:
        text = _SLACK_HOOK.sub(rf"\1{REDACTED}", text)
    if any(stem in lowered for stem in _STEMS):
        if "\n" in text:
            text = _redact_blocks(text)
        if "</" in text:
            text = _ELEMENT.sub(_redact_element, text)
        text = _redact_assignments(text)
        if "--" in text:
            text = _FLAG.sub(_redact_flag, text)
        if '<td class="param">' in text:
            text = _HTML_CELL.sub(_redact_cell, text)
    return text


def redact_value(name: str, text: str) -> str:
    """The text of one named value: hidden whole if the name is a secret's, else as :func:`redact` leaves it.

    ``None``, ``True``, ``False`` and empty values are kept under any name: they say how a run was configured and
    hide nothing. A number under a secret's name is hidden.
    """
    if is_secret_name(name) and text.strip().lower() not in ("", "none", "true", "false", "null", "''", '""'):
        return REDACTED
    return redact(text)


def redact_argv(argv: Sequence[str]) -> list[str]:
    """A command line without its secrets: ``--api-key=x``, ``--password x``, ``db.password=x`` and URLs.

    One-letter options are not guessed at. The result has as many items as ``argv``.
    """
    redacted: list[str] = []
    is_value_of_secret = False
    for argument in argv:
        name, equals, value = argument.partition("=")
        if is_value_of_secret and not re.fullmatch(r"--.*|-[A-Za-z]", argument):
            redacted.append(REDACTED)
            is_value_of_secret = False
            continue
        is_option = argument.startswith("--")
        is_value_of_secret = is_option and not equals and is_secret_name(name) and not _is_negated(name[2:])
        if equals and re.fullmatch(r"[-+~]*[\w.@/-]+", name):
            redacted.append(f"{name}={redact_value(name, value)}")
        else:
            redacted.append(redact(argument))
    return redacted


def _is_negated(option: str) -> bool:
    return option.startswith(("no-", "no_", "without-"))
