"""Content hashes of the data sets, known without reading them. Uses the standard library only.

Planning puts them into stage keys; loading verifies them.
"""

from __future__ import annotations

FINGERPRINTS = {
    # The 60,000 records of the canonical binary files, data_batch_1 to 5 then test_batch.
    "cifar10": "013ba16d14ecc4829da62bf2af648ca30f600491ecb3e7f329c827db0dd17522",
    # The 1,797 8x8 images as uint8, then their labels as uint8, in scikit-learn's order.
    "digits": "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
    # A release and its counts, not a hash: nobody waits for hashing 150 GB. What is loaded is
    # checked against what is known of the release (gigatok.data.imagenet).
    "imagenet": "ILSVRC2012: 1281167 train, 50000 val, 1000 classes",
}
"""Data set -> sha256 of its content, whatever container the data came in."""


def data_fingerprint(name: str) -> str:
    """Return the text that identifies a data set's content.

    Raises:
        ValueError: there is no data set of that name.
    """
    if name not in FINGERPRINTS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(sorted(FINGERPRINTS))}")
    return FINGERPRINTS[name]
