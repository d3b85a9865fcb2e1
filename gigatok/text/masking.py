"""Secrets inside text that is recorded or sent away, such as a patch of uncommitted changes.

No rule recognises every secret. These mask what looks like one, and a patch that is sent is
announced at launch, so that a user can keep it back with `--no-patch`. Uses the standard library
only.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from gigatok.text.credentials import hide_passwords

MASK = "***"
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----).*?"
    r"(-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.S,
)
# Prefixes that providers give to their tokens, so that scanners can find them.
_KNOWN_TOKEN = re.compile(
    r"\b(?:"
    r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"  # GitHub
    r"|glpat-[\w-]{16,}"  # GitLab
    r"|hf_[A-Za-z0-9]{16,}"  # Hugging Face
    r"|(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[\w-]{16,}"  # OpenAI, Anthropic, Stripe
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # AWS key id
    r"|AIza[\w-]{30,}"  # Google
    r"|ya29\.[\w-]{20,}"  # Google OAuth
    r"|xox[abeoprs]-[\w-]{10,}"  # Slack
    r"|(?:npm|pypi|dckr_pat|dapi)[-_]?[A-Za-z0-9_-]{30,}"  # registries, Databricks
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web token
    r")"
)
_AUTHORIZATION = re.compile(r"(?i)(\b(?:bearer|basic|token)\s+)[A-Za-z0-9+/=_.~-]{12,}")
_SECRET_NAME = (
    r"(?:[\w.-]{0,24}(?:passw(?:or)?d|passphrase|secret|credential"
    r"|(?:access|auth|bearer|refresh)[_-]?token"
    r"|(?:api|access|account|private|auth|client|encryption)[_-]?key)[\w.-]{0,24}"
    # A word of its own only: `tokenizer` and `num_tokens` are no secrets here.
    r"|(?:[\w.-]{0,24}[_.-])?(?:token|pwd))"
)
"""Name of a secret, of bounded length: a long line would be searched from each of its letters."""
_QUOTED = re.compile(
    rf"(?i)(\b{_SECRET_NAME}['\"]?\s*\]?\s*(?::\s*\w+\s*)?(?:=>|[:=])\s*[bruf]{{0,2}})"
    r"(\"\"\"|'''|\"|')(?!\2)(.{4,}?)\2"
)
"""Quoted text under a name that says what it is: `api_key = "…"`, `{"token": "…"}`."""
_BARE = re.compile(
    rf"(?im)^([^\w\n]{{0,40}}(?:export |set )?({_SECRET_NAME})[ \t]*[:=][ \t]*)"
    r"([^\s'\"()\[\]{},;]{6,})(?=[ \t]*(?:#.*)?$)"
)
"""Unquoted value on a line of its own, as in an `.env` or a YAML file."""
_OPTION = re.compile(rf"(?i)(--{_SECRET_NAME}(?:[ \t]+|=)|\blogin\s+\S+\s+password\s+)([^\s-]\S+)")
"""Option of a command, or line of `.netrc`."""
_NAME_OR_NUMBER = re.compile(r"[A-Za-z_]+(?:\.[A-Za-z_]+)*|[\d.e+-]+")
_CANDIDATE = re.compile(r"(?<![\w+/=-])[\w+/-]{28,}={0,2}(?![\w+/=-])")
_ENTROPY_BITS = 4.3
"""Bits per character from which a string looks random; names and paths stay below."""


def mask_secrets(text: str) -> str:
    """Mask what looks like a password, key or token.

    In this order: private keys, passwords in URLs, tokens with a known prefix, authorization
    headers, values under a name such as `password` or `api_key`, and long random strings of
    small and capital letters and digits. Hexadecimal digests stay: they are what code pins.
    """
    text = _PRIVATE_KEY.sub(rf"\1{MASK}\2", text)
    text = _KNOWN_TOKEN.sub(MASK, hide_passwords(text))
    text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    text = _QUOTED.sub(rf"\1\2{MASK}\2", text)
    text = _BARE.sub(_bare, text)
    text = _OPTION.sub(rf"\1{MASK}", text)
    return _CANDIDATE.sub(lambda found: MASK if _looks_random(found[0]) else found[0], text)


def _bare(found: re.Match[str]) -> str:
    head, name, value = found.groups()
    # `mask_token: Tensor` and `token = other` are code; `HF_TOKEN=other` is a setting.
    is_code = name.lower().endswith("token") and head.endswith(" ")
    return found[0] if is_code and _NAME_OR_NUMBER.fullmatch(value) else head + MASK


def _looks_random(text: str) -> bool:
    kinds = (str.islower, str.isupper, str.isdigit)
    if not all(any(map(kind, text)) for kind in kinds):
        return False
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares) >= _ENTROPY_BITS
