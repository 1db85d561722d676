"""What the program adds to a stack's values, and that exactly this is taken away again."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from components.chart_values import CHECKSUM, IMAGES, ROLE, credentials_in, fill, image_tag_of, strip
from components.release.values import put

TAGS = st.sampled_from(["1.0", "2.0", "sha-1"])
ROLE_ARN = "arn:aws:iam::111111111111:role/script"


@st.composite
def own_values(draw: st.DrawFn) -> dict[str, Any]:
    """`mern:values` of a stack, as the chart's schema and the settings let them be."""
    values: dict[str, Any] = {}
    for part in draw(st.sets(st.sampled_from(IMAGES))):
        put(values, (part,), draw(st.sampled_from([{}, {"replicas": 2}, {"image": {}}])))
    for part in draw(st.sets(st.sampled_from(IMAGES))):
        put(values, (part, "image", "tag"), draw(TAGS | st.none() | st.just("")))
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


@given(own_values(), own_values(), st.lists(TAGS, min_size=3, max_size=3), ADDED)
def test_what_is_kept_is_filled_to_the_same(
    then: dict[str, Any], today: dict[str, Any], tags: list[str], added: dict[str, Any]
) -> None:
    running = {part: {"image": {"tag": tag}} for part, tag in zip(IMAGES, tags, strict=True)}
    filled = fill(then, running=running, **added)
    kept, image_tag = strip(filled, today, running)
    again = fill(kept, image_tag=image_tag, running=running, **added)
    for part in IMAGES:
        assert image_tag_of(again, part) == image_tag_of(filled, part), part
    assert list(credentials_in(again)) == list(credentials_in(filled))


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
