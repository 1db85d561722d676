"""A credential with every character that quoting changes, and how it is found in whatever was written."""

import base64
import json
from pathlib import Path

# What quoting leaves as it is: whoever sees it has seen the credential, in whatever form.
MARK = "kanariepiet7Qx"
CANARY = f"""p"w'%2B+ü\\<&>€{MARK}=~"""
URI = f"mongodb://app:{CANARY}@mongodb.invalid/mern"
OTHER = f"-----BEGIN KEY-----\n{CANARY}\n{MARK}second\n-----END KEY-----\n"
PARTS = {
    "mern:mongodbUri": URI,
    "mern:serverSecrets": json.dumps({"SESSION_KEY": CANARY, "SIGNING_KEY": OTHER}),
    "mern:awsAccessKeyId": f"id-{CANARY}",
    "mern:awsSecretAccessKey": CANARY,
}


def in_base64(text: str) -> list[str]:
    """What base64 of anything with `text` in it contains: it can begin at three places."""
    runs = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text.encode()).decode()
        runs.append(encoded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6])
    return runs


# Twice: a Secret's data in base64 within Helm's or another's base64.
FORMS = [MARK, *in_base64(MARK), *(twice for once in in_base64(MARK) for twice in in_base64(once))]


def seen(text: str) -> list[str]:
    """Where the credential can be read in `text`."""
    return [text[max(0, text.index(form) - 60) :][:160] for form in FORMS if form in text]


def seen_in_files(folder: Path) -> list[str]:
    """The files in `folder` in which it can be read."""
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and seen(path.read_text(errors="replace"))
    ]
