"""Images of the chart's parts for one run, as `--image` gives them: PART=REFERENCE, separated by blanks."""

import difflib
import re
from dataclasses import dataclass

IMAGES = ("mernClient", "mernServer", "pythonScript")
"""The parts of the chart that have an image."""
IMAGES_VARIABLE = "MERN_IMAGES"
"""The variable that takes `--image` to the program: given as config, it would be saved."""
USAGE = "PART=REPOSITORY@sha256:DIGEST"

_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
REPOSITORY = re.compile(rf"(?:{_DOMAIN}(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*")
TAG_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LONGEST_REPOSITORY = 255


@dataclass(frozen=True, kw_only=True)
class ImageReference:
    """An image by the repository that it is in, and its digest or its tag."""

    repository: str = ""
    """Empty for a digest in the repository that the config names."""
    tag: str = ""
    digest: str = ""
    """`sha256:…`; where there is one, `tag` is empty."""

    def __str__(self) -> str:
        version = f"@{self.digest}" if self.digest else f":{self.tag}"
        return f"{self.repository}{version}" if self.repository else self.digest


def parse_image_reference(text: str) -> ImageReference:
    """Return the image that `text` names, by the grammar of container runtimes.

    That is https://github.com/distribution/reference (regexp.go), with two limits of the chart's schema: of
    digests only SHA-256, and no IPv6 address of a registry. Of `REPOSITORY:TAG@DIGEST` the tag is left out: a
    runtime does not look at it either. A digest alone is one in the repository that the config names.

    Raises:
        ValueError: it names none; the text goes on after "… ", and holds nothing of `text`, which may be a
            URL with a password.
    """
    if not text:
        raise ValueError("is empty, as the output of a build that was skipped")
    if "://" in text:
        raise ValueError("is an address with a scheme: an image has none")
    if "," in text:
        raise ValueError("has a comma: several images are separated by blanks")
    if DIGEST.fullmatch(text):  # by the grammar a tag of a repository `sha256`, which nobody means
        return ImageReference(digest=text)
    name, at, digest = text.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # then it is the port of a registry
        repository, colon, tag = name, "", ""
    if not REPOSITORY.fullmatch(repository) or len(repository) > LONGEST_REPOSITORY:
        hint = " (below the registry, it has no capital letters)" if repository.lower() != repository else ""
        raise ValueError(f"names no repository of images{hint}")
    if colon and not re.fullmatch(TAG_PATTERN, tag):
        raise ValueError("has a tag that is none")
    if at and not DIGEST.fullmatch(digest):
        raise ValueError("has a digest that is not sha256: with 64 digits, 0-9 and a-f")
    if not at and not colon:
        raise ValueError("names neither a digest nor a tag")
    return ImageReference(repository=repository, tag="" if at else tag, digest=digest)


def read_images(text: str) -> tuple[dict[str, ImageReference], dict[str, str]]:
    """Return the images in what `--image` was given, by the part of the chart; and the faults of the
    others, each by what was typed before `=`, for `--image` to stand before it."""
    images: dict[str, ImageReference] = {}
    faults: dict[str, str] = {}
    for word in text.split():
        part, equals, reference = word.partition("=")
        if not (equals and part.isalpha()):  # not quoted: it can be anything, as a URL with a password
            faults["PART"] = f"is not given as PART=REFERENCE; parts are {', '.join(IMAGES)}"
        elif part not in IMAGES:
            near = difflib.get_close_matches(part, IMAGES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"parts are {', '.join(IMAGES)}"
            faults[part] = f"is not a part of the chart; {hint}"
        elif part in images or part in faults:
            faults[part] = "is given twice"
        else:
            try:
                images[part] = parse_image_reference(reference)
            except ValueError as error:
                faults[part] = str(error)
    return images, faults
