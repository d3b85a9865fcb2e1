"""Transfer of a tokenizer's folder from and to the Hugging Face Hub.

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` work as they do for every program that
uses huggingface_hub.
"""

from __future__ import annotations

from pathlib import Path

from gigatok.hub.folder import CONFIG, WEIGHTS, find_weights

INSTALL = "the Hub needs huggingface_hub: pip install 'gigatok-scaling[hub]'"


def download(
    name: str, revision: str | None, token: str | None, cache_dir: str | Path | None
) -> Path:
    """Download configuration and weights, or find them in the Hub's cache; returns their folder.

    Raises:
        ValueError: the name is no Hub id, or the Hub does not give such a model.
    """
    # Here, since only those who use the Hub need to install it.
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ValueError(f"there is no folder {name}, and {INSTALL}") from error
    try:
        found = snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            # By name: no file that could run code is fetched, whatever else the repository has.
            allow_patterns=[CONFIG, WEIGHTS],
        )
    # Not found or not allowed; no id; and, an OSError too, neither reachable nor cached.
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"there is no folder {name} with a tokenizer, and the Hub does not give it: {reason}"
        ) from error
    # A repository without these files downloads without an error, as an empty folder.
    if find_weights(Path(found)) is None:
        raise ValueError(f"{name} on the Hub is no tokenizer: it lacks {CONFIG} or {WEIGHTS}")
    return Path(found)


def upload(folder: Path, name: str, *, private: bool | None, token: str | None) -> str:
    """Upload a folder in one commit, into a repository that is made if needed; returns its URL.

    Raises:
        ValueError: huggingface_hub is not installed, or the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise ValueError(INSTALL) from error
    api = HfApi(token=token)
    try:
        repository = api.create_repo(name, private=private, exist_ok=True).repo_id
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload tokenizer"
        )
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the Hub does not take {name}: {reason}; log in with `hf auth login`, or set "
            "HF_TOKEN to a token that may write there"
        ) from error
    return str(commit.commit_url)
