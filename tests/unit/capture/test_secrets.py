"""What is a secret does not pass, what looks like one does, and hostile text costs no time."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from overt.capture.secrets import REDACTED, is_secret_name, redact, redact_argv, redact_value

SECRET = "s3cr3tV4lue"
RANDOM = "Zk3v9QpX7bN2mW8rT5yL1cH6"

SECRET_NAMES = (
    "password passwd pwd passphrase secret token api_key apikey API-KEY APIKey X-Api-Key private_key access_key "
    "credentials bearer bearer_token auth_token api_token hf_token access_token accessToken GITHUB_TOKEN HF_TOKEN_2 "
    "GITHUB_TOKEN_PROD db_password DB_PASS PGPASSWORD clientSecret aws_secret_access_key auth.token clf__api_key "
    "tok__pad__token Authorization basic_auth api_tokens"
).split()

LOOK_ALIKES = (
    "max_tokens use_cls_token n_tokens tokenizer tokens pad_token cls_token token_pattern tokens_per_second "
    "num_tokens max_new_tokens special_tokens bos_token_id eos_token token_type_ids secretary "
    "author authors key sort_key "
    "keyboard monkey public_key primary_key passthrough forward_pass bypass compass random_state password_length "
    "tfidf__token_pattern"
).split()

SHAPES = {
    "aws": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws_session": "ASIA" + "IOSFODNN7EXAMPLE",
    "github": "ghp_" + RANDOM,
    "github_fine": "github_pat_" + RANDOM,
    "gitlab": "glpat-" + RANDOM,
    "openai": "sk-" + RANDOM,
    "openai_project": "sk-proj-" + RANDOM,
    "anthropic": "sk-ant-api03-" + RANDOM,
    "slack": "xoxb-" + "123456789012-" + RANDOM,
    "google": "AIza" + "SyA" + RANDOM + "abcdefgh",
    "hugging_face": "hf_" + RANDOM,
    "stripe": "sk_live_" + RANDOM,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N",
}

CARRIERS = [
    "{}",
    "see https://host/path/{}?x=1",
    "('{}', 3)",
    "/home/me/{}/data.csv",
    "a={},b=2",
    "+    client = Client({!r})",
]

ASSIGNMENTS = [
    "password = '{}'",
    "password: {}",
    'password="""{}"""',
    '"api_key": "{}"',
    r"\"token\": \"{}\"",
    "{{'token': '{}'}}",
    "api_key=&#x27;{}&#x27;",
    "&quot;token&quot;: &quot;{}&quot;",
    "token: str = '{}'",
    "token: Optional[str] = '{}'",
    "os.environ['API_KEY'] = '{}'",
    "monkeypatch.setenv('API_KEY', '{}')",
    "['mysql', '--password', '{}']",
    "mysql --password {} -u x",
    "Authorization: Bearer {}",
    "Authorization: Basic {}",
    "-DB_PASSWORD={}",
    "+DB_PASSWORD=a,{},b)c",
    "https://host/?token={}&page=1",
    "Client(token='{}', x=1)",
    "password = (\n+    '{}'\n)",
    "api_tokens=['a', '{}']",
    "if password == '{}':",
    "AccountName=x;AccountKey={};",
    'api_key = f"{}"',
    "note: password={}",
    '{{"command": "run --password={}"}}',
    "first: second: token: {}",
    "password='unterminated {}",
    '<td class="param">api_key</td>\n   <td class="value">&#x27;{}&#x27;</td>',
    '<td class="param"><a href="x">api_key<span>the key</span></a></td>\n<td class="value">{}</td>',
    "https://user:{}@host/x",
    "https://user:p@{}@host/x",
    "https://{}@host/x",
    "https://{}:x-oauth-basic@host/x",
    "Bearer {}",
]

HARMLESS = [
    "max_tokens=512, use_cls_token=True",
    r"token_pattern='(?u)\b\w\w+\b'",
    "sorted(x, key=lambda x: x)",
    "sk-learn and scikit-learn and sk-learn-contrib-something-long",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "123e4567-e89b-12d3-a456-426614174000",
    "def login(token: str, password=None):",
    "password = os.environ['X']",
    "connect(password=password)",
    "ssh://git@github.com/a/b",
    "https://host:8080/x@y",
    "eos_token: </s>",
    "pad_token='[PAD]'",
    "the bearer of bad news",
    "token=None, api_key=False, secret=''",
    '<td class="param">pad_token</td><td class="value">5</td>',
]

PEM = (
    "-----BEGIN RSA PRIVATE KEY-----\n{0}MIIEpAIBAAKCAQEA75\n{0}"
    + RANDOM
    + "\n{0}ab==\n{0}-----END RSA PRIVATE KEY-----"
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_a_look_alike_is_no_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_is_known_by_its_shape(shape: str, carrier: str) -> None:
    redacted = redact(carrier.format(SHAPES[shape]))
    assert SHAPES[shape] not in redacted
    assert SHAPES[shape][-12:] not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_an_assigned_secret_is_hidden(assignment: str) -> None:
    redacted = redact(assignment.format(SECRET))
    assert SECRET not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            '{{"secrets": {{"a": {{"b": 1}}, "db": "{}"}}, "n": {{"x": 5}}}}',
            '{{"secrets": [redacted], "n": {{"x": 5}}}}',
        ),
        ("{{'password': [['a'], '{}'], 'n': 1}}", "{{'password': [redacted], 'n': 1}}"),
        ("{{'password': ['a]', '{}'], 'n': 1}}", "{{'password': [redacted], 'n': 1}}"),
        ('"secrets": {{\n  "db": "{}"\n}},\n"n": "x"', '"secrets": {{\n  "db": "[redacted]"\n}},\n"n": "x"'),
    ],
)
def test_all_that_is_nested_in_a_secret_is_hidden_and_no_more(text: str, left: str) -> None:
    assert redact(text.format(SECRET)) == left.format()


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("mark", ["", "+", "-", "  "])
def test_a_private_key_goes_whole_and_alone(mark: str) -> None:
    redacted = redact(f"before\n{mark}{PEM.format(mark)}\n after")
    assert redacted == f"before\n{mark}{REDACTED}\n after"


def test_a_private_key_without_its_end_goes_without_the_prose_around_it() -> None:
    redacted = redact('if "-----BEGIN PRIVATE KEY-----" in text: return parse(text)')
    assert redacted.endswith("in text: return parse(text)")
    assert RANDOM not in redact("-----BEGIN PRIVATE KEY-----\n" + RANDOM * 2 + "\n")


def test_the_aws_secret_beside_its_id_goes_with_it() -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    assert secret not in redact(f"AKIAIOSFODNN7EXAMPLE,{secret}\n")


def test_what_surrounds_a_secret_stays() -> None:
    assert redact("postgresql://ann:hunter2@db/x?y=1") == f"postgresql://ann:{REDACTED}@db/x?y=1"
    assert redact("f(token='x y', n=3)") == f"f(token='{REDACTED}', n=3)"
    assert redact('{"api_key": "a\\"b", "n": 3}') == f'{{"api_key": "{REDACTED}", "n": 3}}'


@pytest.mark.parametrize("text", ["None", "True", "False", "", "null", "''"])
def test_a_setting_that_hides_nothing_is_kept_under_any_name(text: str) -> None:
    assert redact_value("api_key", text) == text


def test_a_value_is_hidden_by_its_name_or_its_own_shape() -> None:
    assert redact_value("token", "12345") == REDACTED
    assert redact_value("path", SHAPES["github"]) == REDACTED
    assert redact_value("max_tokens", "12345") == "12345"


def test_a_command_line_loses_its_secrets_and_keeps_its_length() -> None:
    argv = ["train.py", "--api-key=x", "--password", "y", "--max-tokens", "5", "db.password=z", "--no-password", "a"]
    hidden = ["train.py", f"--api-key={REDACTED}", "--password", REDACTED, "--max-tokens", "5"]
    assert redact_argv(argv) == [*hidden, f"db.password={REDACTED}", "--no-password", "a"]
    assert redact_argv(["--token", "--verbose", "a"]) == ["--token", "--verbose", "a"]
    assert redact_argv(["--url", "https://u:p@h"]) == ["--url", f"https://u:{REDACTED}@h"]


_pieces = st.sampled_from(
    [
        *(
            "token",
            "password",
            "=",
            ":",
            " ",
            "'",
            '"',
            "[",
            "]",
            "(",
            ")",
            ",",
            "&",
            "\n",
            "\\",
            "//",
            "@",
            "--",
            "a",
            "x1",
        ),
        *("[redacted]", "Bearer ", "Authorization", "://u:p@h", "-----BEGIN PRIVATE KEY-----", SHAPES["jwt"], "&quot;"),
        *("'''", "key", "api_", ";", "+", "None", "str", "Basic "),
    ]
)


@given(st.lists(_pieces, max_size=14).map("".join))
@example("Authorization: Bearer [redacted]")
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@given(st.text(max_size=60), st.sampled_from(sorted(SHAPES)), st.text(max_size=60))
def test_no_surroundings_save_a_secret(before: str, shape: str, after: str) -> None:
    assert SHAPES[shape] not in redact(f"{before} {SHAPES[shape]} {after}")


BOMBS = (
    *(
        "a",
        "a-",
        "a.",
        "://",
        "://a:",
        "eyJ",
        "eyJa.",
        "eyJ-",
        "sk-",
        "ghp_",
        "AKIA",
        "xoxb-",
        " ",
        "\n",
        "\\",
        "'",
        '"',
    ),
    *(
        "token=",
        "token='",
        "token=,a",
        "'token',",
        "token='''",
        "token=[",
        "token=['a',\n",
        "token=(\n",
        "token:a ",
        "token : Optional[",
    ),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "Bearer ",
        "--token ",
        "&quot;",
        '<td class="param">',
        "token=&quot;",
        "password: ",
    ),
)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_megabyte_of_hostile_text_takes_no_longer_than_its_length(bomb: str) -> None:
    text = (bomb * (1_000_000 // len(bomb) + 1))[:1_000_000]
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 2.0  # 0.6 s at most when measured; a quadratic pattern takes minutes


@pytest.mark.parametrize(
    "text",
    [
        "<password>hunter2</password>",
        "<server>\n  <db.password>hunter2</db.password>\n</server>",
        "password:\n  hunter2",
        "auth_token: >\n  hunter2\n  hunter2\nother: x",
        "api_key: |-\n    hunter2\n",
        "db:\n  password:\n    hunter2\n",
        "diff --git a/x b/x\n@@ -1 +1,2 @@\n+password:\n+  hunter2\n",
        '{\n  "client_secret":\n    "hunter2"\n}',
    ],
)
def test_a_value_in_an_element_or_on_the_lines_below_its_name_is_hidden(text: str) -> None:
    found = redact(text)
    assert "hunter2" not in found
    assert REDACTED in found
    assert redact(found) == found


@pytest.mark.parametrize(
    "text",
    [
        "<max_tokens>512</max_tokens>",
        "tokenizer:\n  bert\n",
        "secrets:\n  name: x\n  length: 3\n",
        "def login(\n    password: str,\n) -> None:\n    return None\n",
        "class Auth:\n    def f(self):\n        return 1\n",
        "diff --git a/x b/x\n@@ -1 +1,2 @@\n+password:\n other: 1\n more\n",
    ],
)
def test_what_stands_below_another_name_stays(text: str) -> None:
    assert redact(text) == text


PYTHON_DIFF = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1 +1,2 @@\n"


@pytest.mark.parametrize(
    "code",
    [
        'token = tokenizer.encode("hello")',
        'api_key = load_key("prod")',
        "SECRET_SEED = 42",
        "token = ids[0]",
        "token = batch.token",
        "token = [f(x) for x in ids]",
        "token = not done",
        'vocabulary = {"token": count(x), "password": next(it)}',
        "for token in ids:\n+    if token != ends[0]:\n+        token = next(it)",
    ],
)
def test_an_expression_in_the_python_of_a_diff_is_no_secret(code: str) -> None:
    assert redact(f"{PYTHON_DIFF}+{code}\n") == f"{PYTHON_DIFF}+{code}\n"


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("password = '{}'", "password = '[redacted]'"),
        ("password = b'{}'", "password = b'[redacted]'"),
        ("password = f'{}{{x}}'", "password = f'[redacted]'"),
        ("password = 'x' + '{}'", "password = '[redacted]' + '[redacted]'"),
        ("password = 'x' '{}'", "password = '[redacted]' '[redacted]'"),
        ("password = (\n    'x'\n    '{}'\n)", None),
        ("connect(user=f(x), password='{}')", "connect(user=f(x), password='[redacted]')"),
        ("connect(token=g(x), password='{}')", "connect(token=g(x), password='[redacted]')"),
        ("known = {{'password': '{}', 'n': 1}}", "known = {{'password': '[redacted]', 'n': 1}}"),
        ("api_tokens = ['{}', f(x)]", "api_tokens = [redacted]"),
        ("secrets = {{\n    'db': '{}',\n}}", "secrets = {{\n    'db': '[redacted]',\n}}"),
        ("API_KEYS = [\n    f(x),\n    '{}',\n]", "API_KEYS = [\n    f(x),\n    '[redacted]',\n]"),
        ("password = 12345678", "password = [redacted]"),
        ("password = unlock(12345678)", "password = [redacted]"),
        ("if token == end_of_text:", "if token == [redacted]:"),
        ("x = f'token={{f(token)}}'", "x = f'token=[redacted]'"),
    ],
)
def test_a_secret_in_the_python_of_a_diff_is_hidden_and_leaves_valid_code(code: str, left: str | None) -> None:
    written = code.format(SECRET)
    redacted = redact(PYTHON_DIFF + "".join(f"+{line}\n" for line in written.split("\n")))
    after = redacted.removeprefix(PYTHON_DIFF).replace("\n+", "\n").removeprefix("+").rstrip("\n")
    assert SECRET not in after
    assert "12345678" not in after
    assert left is None or after == left.format()
    compile(f"{after}\n    pass" if after.endswith(":") else after, "train.py", "exec")
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "# password = {}(x)",
        "note = 'password={}(x)'",
        'note = """\n+password={}(x)\n+"""',
        'password={}(x)\n+"""',
        "password = {}",
        "connect(password={})",
    ],
)
def test_what_may_be_text_in_the_python_of_a_diff_is_judged_as_text(text: str) -> None:
    assert SECRET not in redact(f"{PYTHON_DIFF}+{text.format(SECRET)}\n")


@pytest.mark.parametrize(
    ("name", "line"), [(".env", "PASSWORD={}(x)"), ("a.yaml", "password: {}(x)"), ("x", "token={}[")]
)
def test_a_diff_of_another_file_holds_no_expressions(name: str, line: str) -> None:
    other = f"diff --git a/{name} b/{name}\n@@ -1 +1,2 @@\n+{line.format(SECRET)}\n"
    assert SECRET not in redact(PYTHON_DIFF + other)
    assert SECRET not in redact(other + PYTHON_DIFF)


@pytest.mark.parametrize(
    "bomb", [*BOMBS, "token=f(", "token=(a(", "token=f(x)\n+", "token='a' + ", "@@ ", "\n@@ " + 3 * "'"]
)
def test_a_megabyte_of_hostile_python_takes_no_longer_than_its_length(bomb: str) -> None:
    text = PYTHON_DIFF + (bomb * (1_000_000 // len(bomb) + 1))[:1_000_000]
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 4.0
