"""Images of a run: what `--image` takes, and what it says of all that is wrong."""

from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import IMAGES_VARIABLE, ImageReference, Settings, parse_image_reference
from tests.unit.test_settings import ENCRYPTED, LEAST, as_text

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("mern-server:1.0", "mern-server", "1.0", ""),
        (f"mern-server@{DIGEST}", "mern-server", "", DIGEST),
        (DIGEST, "", "", DIGEST),
        ("localhost:5000/a/b:x", "localhost:5000/a/b", "x", ""),
        ("Registry.Example:5000/a__b/c--d.e:_X.y-z", "Registry.Example:5000/a__b/c--d.e", "_X.y-z", ""),
        ("10.0.0.7/app:1", "10.0.0.7/app", "1", ""),
        (f"ghcr.io/shop/server:v1@{DIGEST}", "ghcr.io/shop/server", "", DIGEST),
        (f"h:1/app:{'t' * 128}", "h:1/app", "t" * 128, ""),
    ],
)
def test_an_image_is_a_repository_with_a_tag_or_a_digest(
    text: str, repository: str, tag: str, digest: str
) -> None:
    image = parse_image_reference(text)
    assert image == ImageReference(repository=repository, tag=tag, digest=digest)
    assert parse_image_reference(str(image)) == image


REPOSITORY, TAG = "names no repository of images", "has a tag that is none"
OF_DIGEST = "has a digest that is not sha256: with 64 digits, 0-9 and a-f"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("mern-server", "names neither a digest nor a tag"),
        ("localhost:5000/app", "names neither a digest nor a tag"),
        ("", "is empty, as the output of a build that was skipped"),
        (":1.0", REPOSITORY),
        (f"@{DIGEST}", REPOSITORY),
        ("a//b:1", REPOSITORY),
        ("/a:1", REPOSITORY),
        ("a/b-:1", REPOSITORY),
        ("a___b:1", REPOSITORY),
        ("a/../b:1", REPOSITORY),
        ("ghcr.io/Shop/server:1", f"{REPOSITORY} (below the registry, it has no capital letters)"),
        (f"{'a' * 256}:1", REPOSITORY),
        ("app:", TAG),
        ("app:.1", TAG),
        ("app:ä", TAG),
        (f"app:{'t' * 129}", TAG),
        (f"app:1:2@{DIGEST}", REPOSITORY),
        ("app@", OF_DIGEST),
        ("app@sha256:abc", OF_DIGEST),
        (f"app@{DIGEST.upper()}", OF_DIGEST),
        (f"app@{DIGEST}0", OF_DIGEST),
        (f"app@sha512:{'0' * 128}", OF_DIGEST),
        (f"app@{DIGEST}@{DIGEST}", OF_DIGEST),
        (f"app@{DIGEST}\n", OF_DIGEST),
        ("app:1,mernClient=app:1", "has a comma: several images are separated by blanks"),
        ("https://ghcr.io/app:1", "is an address with a scheme: an image has none"),
    ],
)
def test_what_is_no_image_is_said(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_image_reference(text)
    assert str(caught.value) == fault


@given(st.text(st.sampled_from("aZ0.:/@-_=,é\n"), max_size=12))
def test_an_image_is_written_as_it_was_read(text: str) -> None:
    try:
        image = parse_image_reference(text)
    except ValueError:
        return
    assert str(image) == text


def parse(images: str, **config: Any) -> Settings:
    return Settings.parse(as_text({**LEAST, **config}), ENCRYPTED, "staging", run_images=images)


SERVER = {"mernServer": {"image": {"repository": "ghcr.io/shop/server", "tag": "1"}}}


def test_images_of_a_run_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse("").images == {}
    images = parse(f"mernServer=ghcr.io/shop/server@{DIGEST}", values=SERVER).images
    assert images == {"mernServer": ImageReference(repository="ghcr.io/shop/server", digest=DIGEST)}
    assert parse(f"mernClient={DIGEST}").images == {"mernClient": ImageReference(digest=DIGEST)}
    assert IMAGES_VARIABLE == "MERN_IMAGES"


def test_all_faults_of_images_are_said_together_as_they_were_typed() -> None:
    given = (
        f"mernServer=ghcr.io/another/server@{DIGEST} mernClient=app@sha256:12 mernScript=a:1 "
        "https://me:pass-of-me@ghcr.io/a?b=c mernClient=app:1 pythonScript=etl:1"
    )
    with pytest.raises(pulumi.RunError) as caught:
        parse(given, values=SERVER, imageTag="a b")
    assert str(caught.value).splitlines() == [
        "6 faults in the config of stack staging (Pulumi.staging.yaml, or in --image):",
        "  --image PART is not given as PART=REFERENCE; parts are mernClient, mernServer, pythonScript",
        "      --image PART=REPOSITORY@sha256:DIGEST",
        "  --image mernClient is given twice",
        "      --image PART=REPOSITORY@sha256:DIGEST",
        "  --image mernScript is not a part of the chart; did you mean pythonScript?",
        "      --image PART=REPOSITORY@sha256:DIGEST",
        "  --image mernServer names another repository than mern:values.mernServer.image.repository, where "
        "later runs look for it",
        "      pulumi config set --path 'mern:values.mernServer.image.repository' ghcr.io/another/server "
        "--stack staging",
        "  --image pythonScript names another repository than mern:values.pythonScript.image.repository, "
        "where later runs look for it",
        "      pulumi config set --path 'mern:values.pythonScript.image.repository' etl --stack staging",
        "  mern:imageTag is not a tag of a container image",
        "      pulumi config set mern:imageTag VALUE --stack staging",
    ]
