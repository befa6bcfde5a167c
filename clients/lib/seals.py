"""A seal: a hash beside figures that a program wrote into a document. When somebody changes the
figures by hand, the seal no longer fits."""

import hashlib


def seal(text):
    """Blanks do not count, so that a text may be laid out in another way."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:8]
