"""Logins and secrets: taken out of what is kept, shown or sent."""

from __future__ import annotations

import pytest

from gigatok.text.credentials import (
    has_secret,
    hide_passwords,
    login,
    mlflow_variables,
    shown,
    shown_command,
    without_login,
)
from gigatok.text.masking import mask_secrets

URLS = {
    "http://me:geheim@host:5000/x": ("http://me:***@host:5000/x", "http://host:5000/x"),
    "http://me:ge@heim@host": ("http://me:***@host", "http://host"),
    "http://geheim@host": ("http://***@host", "http://host"),
    "postgresql://h/db?sslmode=on&password=geheim": (
        "postgresql://h/db?sslmode=on&password=***",
        "postgresql://h/db?sslmode=on",
    ),
    "postgresql://h/db?password=geheim": ("postgresql://h/db?password=***", "postgresql://h/db"),
    "sqlite:////data/a@b/mlflow.db": ("sqlite:////data/a@b/mlflow.db",) * 2,
    "http://host:5000": ("http://host:5000",) * 2,
}


@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_a_login_is_hidden_or_removed(url: str, expected: tuple[str, str]) -> None:
    assert (shown(url), without_login(url)) == expected
    assert has_secret(url) == ("heim" in url)
    assert hide_passwords(f"GET '{url}' failed") == f"GET '{expected[0]}' failed"


@pytest.mark.parametrize("password", ["a b", "a'b", "a/b", "a#b", "a@b", 'a"b'])
def test_no_odd_character_of_a_password_reaches_a_command(password: str) -> None:
    words = ["launch", f"--tracking-uri=http://me:{password}@host", f"http://me:{password}@host"]
    assert shown_command(words).count("me:***@host") == 2


def test_mlflow_gets_a_login_as_variables() -> None:
    assert login("http://me:a%40b@host") == ("me", "a@b")
    assert mlflow_variables("http://me:a%40b@host") == {
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": "a@b",
    }
    assert mlflow_variables("http://host") == mlflow_variables("postgresql://me:x@host") == {}


SECRETS = (
    '+api_key = "{}"',
    '+os.environ["WANDB_API_KEY"] = "{}"',
    "+config = {{'token': '{}'}}",
    "+export HF_TOKEN={}",
    "+password: {}",
    "+def login(password: str = '{}'):",
    "+  url: http://me:{}@host/x",
    "+curl --token {} https://host",
    "+machine host login me password {}",
    "+-----BEGIN RSA PRIVATE KEY-----\n+{}\n+-----END RSA PRIVATE KEY-----",
    "+-----BEGIN PRIVATE KEY-----\n+{}",
)
VALUES = ("correcthorse", "geheim.9-x", "0123456789abcdef0123456789abcdef01234567")
TOKENS = (
    "ghp_" + "a1B2" * 9,
    "hf_" + "aBcD" * 8,
    "sk-proj-" + "a1B2c3D4" * 4,
    "AKIA" + "ABCDEFGH12345678",
    "xoxb-" + "1234567890-abcdef",
    "glpat-" + "abcDEF123456ghiJKL78",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "abcdefGH",
    "wJalrXUtnFEMI" + "/K7MDENG/bPxRfiCYzEXAMPLEKEY",
)


@pytest.mark.parametrize("line", SECRETS)
@pytest.mark.parametrize("value", VALUES)
def test_a_value_under_a_telling_name_is_masked(line: str, value: str) -> None:
    masked = mask_secrets(f" before\n{line.format(value)}\n")
    assert value not in masked
    assert masked.startswith(" before\n+")


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_known_by_their_form(token: str) -> None:
    assert token not in mask_secrets(f'+client = connect("{token}", retries=3)\n')


CODE = """diff --git a/x.py b/x.py
index 0123456789abcdef0123456789abcdef01234567..fedcba9876543210fedcba9876543210fedcba98 100644
-tokens: int = 256
+tokenizer = "gigatok/tokenizer-1d-vq-L"
+mask_token: Tensor
+token = self.tokens
+password = getpass.getpass()
+SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
+from orchestration.tracking.sweep_runs import SweepRunsOfOneVeryLongName2
"""


def test_code_is_left_as_it_is() -> None:
    assert mask_secrets(CODE) == CODE


@pytest.mark.heavy
def test_a_long_line_takes_no_time_out_of_proportion() -> None:
    # A rule that searches the rest from each letter would not end within the test's patience.
    for part in ("a-", "password", "http://", "\n", " \t", "A1b"):
        assert mask_secrets(part * 20_000)
