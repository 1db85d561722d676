"""What an object needs of others in its namespace, and what a stack's state says is its own."""

from components.release.references import references
from components.release.stack_state import StackState

POD = {
    "serviceAccountName": "web",
    "imagePullSecrets": [{"name": "registry"}],
    "containers": [
        {
            "name": "web",
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "uri", "key": "A"}}},
                {
                    "name": "B",
                    "valueFrom": {"configMapKeyRef": {"name": "maybe", "key": "B", "optional": True}},
                },
            ],
            "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "settings"}}],
        }
    ],
    "volumes": [
        {"name": "a", "secret": {"secretName": "tls"}},
        {"name": "b", "secret": {"secretName": "perhaps", "optional": True}},
        {"name": "c", "configMap": {"name": "files"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {
            "name": "e",
            "projected": {"sources": [{"configMap": {"name": "part"}}, {"secret": {"name": "key"}}]},
        },
    ],
}


def test_an_object_names_what_its_pods_cannot_do_without() -> None:
    deployment = {"kind": "Deployment", "spec": {"template": {"spec": POD}}}
    assert set(references(deployment)) == {
        ("ServiceAccount", "web"),
        ("Secret", "registry"),
        ("Secret", "uri"),
        ("Secret", "all"),
        ("Secret", "tls"),
        ("Secret", "key"),
        ("ConfigMap", "settings"),
        ("ConfigMap", "files"),
        ("ConfigMap", "part"),
        ("PersistentVolumeClaim", "data"),
    }


def test_the_state_knows_a_resource_by_its_types_and_those_of_its_parents() -> None:
    urn = "urn:pulumi:s::mern::mern:index:MernApplication$kubernetes:core/v1:Namespace::mern-namespace"
    state = StackState({urn: {"metadata": {"name": "shop"}}})
    namespace = "kubernetes:core/v1:Namespace"
    assert set(state.of_types("mern:index:MernApplication", namespace)) == {urn}
    assert not state.of_types("mern:0a1b2c3d:MernApplication", namespace), "that of another cluster"
    assert not state.of_types("mern:index:MernApplication", f"{namespace}Patch")
    assert not state.of_types(namespace)
