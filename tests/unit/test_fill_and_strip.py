"""What the program adds to a stack's values, and that exactly this is taken away again."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from components.chart_values import CHECKSUM, ROLE, credentials_in, fill, strip, version_of
from components.release.values import put
from settings import IMAGES, ImageReference

TAGS = st.sampled_from(["1.0", "2.0", "sha-1"])
DIGESTS = st.sampled_from(["sha256:" + digit * 64 for digit in "ab"])
ROLE_ARN = "arn:aws:iam::111111111111:role/script"


@st.composite
def own_values(draw: st.DrawFn) -> dict[str, Any]:
    """`mern:values` of a stack, as the chart's schema and the settings let them be."""
    values: dict[str, Any] = {}
    for part in draw(st.sets(st.sampled_from(IMAGES))):
        put(values, (part,), draw(st.sampled_from([{}, {"replicas": 2}, {"image": {}}])))
    for part in draw(st.sets(st.sampled_from(IMAGES))):
        if draw(st.booleans()):
            put(values, (part, "image", "tag"), draw(TAGS | st.none() | st.just("")))
        else:
            put(values, (part, "image", "digest"), draw(DIGESTS))
    for part in draw(st.sets(st.sampled_from(["mernServer", "pythonScript"]))):
        put(values, (part, "existingSecret"), "vault")
    if draw(st.booleans()):
        put(values, ROLE, draw(st.sampled_from([ROLE_ARN, "of my own"])))
    if draw(st.booleans()):
        put(
            values, ("pythonScript", "serviceAccount", "annotations"), draw(st.sampled_from([{}, {"a": "b"}]))
        )
    if draw(st.booleans()):
        put(values, CHECKSUM, "of my own")
    return values


ADDED: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "credentials": st.fixed_dictionaries(
            {},
            optional={
                "mongodbUri": st.just("mongodb://a"),
                "serverSecrets": st.sampled_from([{}, {"JWT": "x"}]),
                "awsAccessKeyId": st.just("id"),
                "awsSecretAccessKey": st.just("key"),
            },
        ),
        "role": st.sampled_from([None, ROLE_ARN]),
        "checksum": st.sampled_from(["", "0123"]),
    }
)


@given(own_values(), TAGS, ADDED)
def test_what_is_added_is_taken_away_again(own: dict[str, Any], tag: str, added: dict[str, Any]) -> None:
    filled = fill(own, image_tag=tag, **added)
    kept, image_tag = strip(filled, own)
    assert kept == own
    assert image_tag == (tag if filled != fill(own, **added) else None)


@given(own_values(), own_values(), st.lists(TAGS | DIGESTS, min_size=3, max_size=3), ADDED)
def test_what_is_kept_is_filled_to_the_same(
    then: dict[str, Any], today: dict[str, Any], versions: list[str], added: dict[str, Any]
) -> None:
    running = {
        part: {"image": {"digest" if ":" in version else "tag": version}}
        for part, version in zip(IMAGES, versions, strict=True)
    }
    filled = fill(then, running=running, **added)
    kept, image_tag = strip(filled, today, running)
    again = fill(kept, image_tag=image_tag, running=running, **added)
    for part in IMAGES:
        assert version_of(again, part) == version_of(filled, part), part
        assert sorted(again[part].get("image", ())) == sorted({**filled[part].get("image", {})}), part
    assert list(credentials_in(again)) == list(credentials_in(filled))


def test_an_image_has_a_tag_or_a_digest_and_that_of_a_run_comes_first() -> None:
    digest, running = (
        "sha256:" + "a" * 64,
        {part: {"image": {"digest": "sha256:" + "b" * 64}} for part in IMAGES},
    )
    own = {"mernServer": {"image": {"repository": "shop/server", "tag": "1"}}, "mernClient": {"replicas": 2}}
    images = {"mernServer": ImageReference(repository="shop/server", digest=digest)}

    assert fill(own, images=images, image_tag="2", running=running) == {
        "mernServer": {"image": {"repository": "shop/server", "digest": digest}},
        "mernClient": {"replicas": 2, "image": {"tag": "2"}},
        "pythonScript": {"image": {"tag": "2"}},
    }
    kept = fill({**own, "mernServer": {}}, running={**running, "mernClient": {"image": {"tag": "3"}}})
    assert kept == {
        "mernServer": {"image": {"digest": "sha256:" + "b" * 64}},
        "mernClient": {"replicas": 2, "image": {"tag": "3"}},
        "pythonScript": {"image": {"digest": "sha256:" + "b" * 64}},
    }
    by_tag = {"pythonScript": ImageReference(repository="etl", tag="4")}
    pinned = {"pythonScript": {"image": {"digest": digest}}}
    assert fill(pinned, images=by_tag)["pythonScript"] == {"image": {"tag": "4"}}


def test_nothing_of_the_stack_is_replaced() -> None:
    own = {"mernServer": {"image": "nginx"}, "pythonScript": None}
    assert fill(own, image_tag="1", credentials={"mongodbUri": "x"}, role=ROLE_ARN) == {
        "mernClient": {"image": {"tag": "1"}},
        "mernServer": {"image": "nginx", "mongodbUri": "x"},
        "pythonScript": None,
    }


def test_a_credential_goes_where_no_secret_of_somebody_else_is_named() -> None:
    values = fill({"mernServer": {"existingSecret": "vault"}}, credentials={"mongodbUri": "x"}, checksum="1")
    assert values == {
        "mernServer": {"existingSecret": "vault", "existingSecretChecksum": "1"},
        "pythonScript": {"mongodbUri": "x"},
    }


def test_credentials_are_found_with_their_keys() -> None:
    values = {"mernServer": {"mongodbUri": "x", "secrets": {"A": "1"}}, "pythonScript": {"mongodbUri": "y"}}
    assert sorted(credentials_in(values)) == [
        ("mongodbUri", "x"),
        ("mongodbUri", "y"),
        ("serverSecrets.A", "1"),
    ]
